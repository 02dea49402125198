// The published gateway client against a running network: every public call that an application makes.
// Where things are comes from the environment, as in Fabric's sample applications; a failed expectation ends with exit status 1.

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs/promises';
import path from 'node:path';

import * as grpc from '@grpc/grpc-js';
import { connect, hash, signers, EndorseError, GatewayError } from '@hyperledger/fabric-gateway';

const { CRYPTO_PATH, MSP_ID, PEER_ENDPOINT, PEER_HOST_ALIAS, USER_NAME, OTHER_PEER_ENDPOINT, OTHER_PEER_HOST_ALIAS, OTHER_TLS_CERT_PATH } =
    process.env;
const CHANNEL = process.env.CHANNEL_NAME ?? 'mychannel';
const CHAINCODE = process.env.CHAINCODE_NAME ?? 'basic';
const text = new TextDecoder();

async function firstFile(folder) {
    const [name] = await fs.readdir(folder);
    return fs.readFile(path.join(folder, name));
}

async function clientOf(endpoint, alias, tlsPath) {
    return new grpc.Client(endpoint, grpc.credentials.createSsl(await fs.readFile(tlsPath)), {
        'grpc.ssl_target_name_override': alias,
    });
}

async function gatewayOf(client) {
    const msp = path.join(CRYPTO_PATH, 'users', USER_NAME, 'msp');
    return connect({
        client,
        identity: { mspId: MSP_ID, credentials: await firstFile(path.join(msp, 'signcerts')) },
        signer: signers.newPrivateKeySigner(crypto.createPrivateKey(await firstFile(path.join(msp, 'keystore')))),
        hash: hash.sha256,
        evaluateOptions: () => ({ deadline: Date.now() + 5_000 }),
        endorseOptions: () => ({ deadline: Date.now() + 15_000 }),
        submitOptions: () => ({ deadline: Date.now() + 5_000 }),
        commitStatusOptions: () => ({ deadline: Date.now() + 30_000 }),
    });
}

/** Submits a transaction by steps, so that each of the client's objects is used; gives the commit status. */
async function submitBySteps(contract, name, ...args) {
    const proposal = contract.newProposal(name, { arguments: args });
    const transaction = await proposal.endorse();
    const commit = await transaction.submit();
    const status = await commit.getStatus();
    assert.equal(status.transactionId, proposal.getTransactionId());
    assert.ok(status.successful, `${name} ended with code ${status.code}`);
    assert.ok(status.blockNumber > 0n);
    return { status, result: text.decode(transaction.getResult()) };
}

async function signsOffline(gateway, network, id) {
    const contract = network.getContract(CHAINCODE);
    const key = crypto.createPrivateKey(await firstFile(path.join(CRYPTO_PATH, 'users', USER_NAME, 'msp', 'keystore')));
    const sign = signers.newPrivateKeySigner(key);
    const unsigned = contract.newProposal('ReadAsset', { arguments: [id] });
    const signed = gateway.newSignedProposal(unsigned.getBytes(), await sign(unsigned.getDigest()));
    assert.equal(JSON.parse(text.decode(await signed.evaluate())).ID, id);
}

async function receivesEvents(network, contract) {
    const id = `event${Date.now()}`;
    const before = await submitBySteps(contract, 'CreateAsset', id, 'blue', '1', 'Ada', '10');
    const events = await network.getChaincodeEvents(CHAINCODE, { startBlock: before.status.blockNumber });
    try {
        for await (const event of events) {
            if (event.transactionId !== before.status.transactionId) {
                continue;
            }
            assert.equal(event.chaincodeName, CHAINCODE);
            assert.equal(event.eventName, 'CreateAsset');
            assert.equal(event.blockNumber, before.status.blockNumber);
            assert.equal(JSON.parse(text.decode(event.payload)).ID, id);
            return;
        }
        assert.fail('the event stream ended before the event came');
    } finally {
        events.close();
    }
}

async function receivesBlocks(network, blockNumber) {
    const blocks = await network.getFilteredBlockEvents({ startBlock: blockNumber });
    try {
        for await (const block of blocks) {
            assert.equal(BigInt(block.getNumber()), blockNumber);
            assert.equal(block.getChannelId(), CHANNEL);
            assert.ok(block.getFilteredTransactionsList().length > 0);
            return;
        }
    } finally {
        blocks.close();
    }
}

async function explainsRefusals(contract) {
    const missing = await contract.evaluateTransaction('ReadAsset', 'nobody').then(
        () => assert.fail('reading a missing asset succeeded'),
        (error) => error,
    );
    assert.ok(missing instanceof GatewayError, String(missing));
    assert.match(missing.message, /The asset nobody does not exist/);

    const refused = await contract.submitTransaction('UpdateAsset', 'asset70', 'blue', '5', 'Tomoko', '300').then(
        () => assert.fail('updating a missing asset succeeded'),
        (error) => error,
    );
    assert.ok(refused instanceof EndorseError, String(refused));
    assert.equal(refused.code, grpc.status.ABORTED);
    assert.ok(refused.details.length > 0, 'no error detail came with the refusal');
    assert.match(refused.details[0].message, /The asset asset70 does not exist/);
    assert.equal(refused.details[0].mspId, MSP_ID);
}

async function main() {
    const client = await clientOf(PEER_ENDPOINT, PEER_HOST_ALIAS, path.join(CRYPTO_PATH, 'peers', PEER_HOST_ALIAS, 'tls', 'ca.crt'));
    const gateway = await gatewayOf(client);
    try {
        const network = gateway.getNetwork(CHANNEL);
        const contract = network.getContract(CHAINCODE);

        const id = `asset${Date.now()}`;
        await submitBySteps(contract, 'CreateAsset', id, 'yellow', '5', 'Tom', '1300');
        assert.deepEqual(JSON.parse(text.decode(await contract.evaluateTransaction('ReadAsset', id))), {
            AppraisedValue: 1300,
            Color: 'yellow',
            ID: id,
            Owner: 'Tom',
            Size: 5,
        });
        console.log('ok evaluate and submit');

        const moved = await submitBySteps(contract, 'TransferAsset', id, 'Saptha');
        assert.equal(moved.result, 'Tom');
        console.log('ok submit by steps');

        await signsOffline(gateway, network, id);
        console.log('ok off-line signing');
        await receivesEvents(network, contract);
        console.log('ok chaincode events');
        await receivesBlocks(network, moved.status.blockNumber);
        console.log('ok filtered block events');
        await explainsRefusals(contract);
        console.log('ok refusals');

        if (OTHER_PEER_ENDPOINT) {
            const otherClient = await clientOf(OTHER_PEER_ENDPOINT, OTHER_PEER_HOST_ALIAS, OTHER_TLS_CERT_PATH);
            const other = await gatewayOf(otherClient);
            try {
                const asset = await other.getNetwork(CHANNEL).getContract(CHAINCODE).evaluateTransaction('ReadAsset', id);
                assert.equal(JSON.parse(text.decode(asset)).Owner, 'Saptha');
                console.log('ok the other organisation reads the same');
            } finally {
                other.close();
                otherClient.close();
            }
        }
    } finally {
        gateway.close();
        client.close();
    }
}

main().catch((error) => {
    console.error(error);
    process.exitCode = 1;
});
