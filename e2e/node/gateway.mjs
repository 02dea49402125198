// The published gateway client against a running network: every public call that an application makes.
// Where things are comes from the environment, as in Fabric's sample applications; a failed expectation ends with exit status 1.

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';

import * as grpc from '@grpc/grpc-js';
import { checkpointers, connect, hash, signers, EndorseError, GatewayError } from '@hyperledger/fabric-gateway';

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

/** Every step of a transaction with a signature that is made elsewhere. */
async function signsOffline(network, otherwise) {
    const contract = network.getContract(CHAINCODE);
    const key = crypto.createPrivateKey(await firstFile(path.join(CRYPTO_PATH, 'users', USER_NAME, 'msp', 'keystore')));
    const sign = signers.newPrivateKeySigner(key);
    const signed = async (make, item) => make(item.getBytes(), await sign(item.getDigest()));

    const id = `offline${Date.now()}`;
    const unsigned = contract.newProposal('CreateAsset', { arguments: [id, 'green', '3', 'Grace', '30'] });
    const proposal = await signed(otherwise.newSignedProposal.bind(otherwise), unsigned);
    assert.equal(proposal.getTransactionId(), unsigned.getTransactionId());
    const transaction = await signed(otherwise.newSignedTransaction.bind(otherwise), await proposal.endorse());
    const commit = await signed(otherwise.newSignedCommit.bind(otherwise), await transaction.submit());
    const status = await commit.getStatus();
    assert.ok(status.successful, `code ${status.code}`);

    const query = contract.newProposal('ReadAsset', { arguments: [id] });
    const read = await signed(otherwise.newSignedProposal.bind(otherwise), query);
    assert.equal(JSON.parse(text.decode(await read.evaluate())).ID, id);

    const startBlock = status.blockNumber;
    const streams = [
        [network.newChaincodeEventsRequest(CHAINCODE, { startBlock }), otherwise.newSignedChaincodeEventsRequest],
        [network.newBlockEventsRequest({ startBlock }), otherwise.newSignedBlockEventsRequest],
        [network.newFilteredBlockEventsRequest({ startBlock }), otherwise.newSignedFilteredBlockEventsRequest],
        [
            network.newBlockAndPrivateDataEventsRequest({ startBlock }),
            otherwise.newSignedBlockAndPrivateDataEventsRequest,
        ],
    ];
    for (const [request, make] of streams) {
        const events = await (await signed(make.bind(otherwise), request)).getEvents();
        await first(events, () => true);
    }
}

/** The first event that is wanted; the stream is closed then. */
async function first(events, wanted) {
    try {
        for await (const event of events) {
            if (wanted(event)) {
                return event;
            }
        }
        return assert.fail('the stream ended before the event came');
    } finally {
        events.close();
    }
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
    const startBlock = blockNumber;
    const filtered = await first(await network.getFilteredBlockEvents({ startBlock }), () => true);
    assert.equal(BigInt(filtered.getNumber()), blockNumber);
    assert.equal(filtered.getChannelId(), CHANNEL);
    assert.ok(filtered.getFilteredTransactionsList().length > 0);
    console.log('ok filtered block events');

    const whole = await first(await network.getBlockEvents({ startBlock }), () => true);
    assert.equal(BigInt(whole.getHeader().getNumber()), blockNumber);
    assert.ok(whole.getData().getDataList().length > 0);
    console.log('ok block events');

    const both = await first(await network.getBlockAndPrivateDataEvents({ startBlock }), () => true);
    assert.equal(BigInt(both.getBlock().getHeader().getNumber()), blockNumber);
    console.log('ok private data events');
}

/** A checkpoint leads past what was seen, in memory and in a file. */
async function resumes(network, contract) {
    const one = await submitBySteps(contract, 'CreateAsset', `one${Date.now()}`, 'blue', '1', 'Ada', '1');
    const two = await submitBySteps(contract, 'CreateAsset', `two${Date.now()}`, 'blue', '1', 'Ada', '1');
    const file = path.join(await fs.mkdtemp(path.join(os.tmpdir(), 'consort-')), 'checkpoint.json');
    for (const checkpoint of [checkpointers.inMemory(), await checkpointers.file(file)]) {
        const startBlock = one.status.blockNumber;
        const events = await network.getChaincodeEvents(CHAINCODE, { startBlock, checkpoint });
        const seen = await first(events, () => true);
        assert.equal(seen.transactionId, one.status.transactionId);
        await checkpoint.checkpointChaincodeEvent(seen);
        const next = await first(await network.getChaincodeEvents(CHAINCODE, { checkpoint }), () => true);
        assert.equal(next.transactionId, two.status.transactionId);
        await checkpoint.checkpointBlock(one.status.blockNumber);
        const block = await first(await network.getBlockEvents({ checkpoint }), () => true);
        assert.equal(BigInt(block.getHeader().getNumber()), one.status.blockNumber + 1n);
    }
    await fs.rm(path.dirname(file), { recursive: true });
}

/** Waits until an organisation's peer, too, has committed that an asset belongs to somebody: the gateway answers for its own. */
async function committedAt(contract, organisation, id, owner) {
    const deadline = Date.now() + 20_000;
    for (;;) {
        const call = { arguments: [id], endorsingOrganizations: [organisation] };
        const seen = await contract.evaluate('ReadAsset', call).then((asset) => JSON.parse(text.decode(asset)).Owner, () => undefined);
        if (seen === owner) return;
        assert.ok(Date.now() < deadline, `${organisation} still sees the owner ${seen} of ${id}`);
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
}

/** Named organisations, transient data and one call for everything. */
async function choosesEndorsers(contract) {
    const id = `chosen${Date.now()}`;
    await contract.submit('CreateAsset', {
        arguments: [id, 'blue', '1', 'Ada', '1'],
        transientData: { unused: Buffer.from('secret') },
        endorsingOrganizations: ['Org1MSP', 'Org2MSP'],
    });
    await committedAt(contract, 'Org2MSP', id, 'Ada');
    const submitted = await contract.submitAsync('TransferAsset', { arguments: [id, 'Grace'] });
    assert.equal(text.decode(submitted.getResult()), 'Ada');
    assert.ok((await submitted.getStatus()).successful);
    await committedAt(contract, 'Org2MSP', id, 'Grace');
    const missing = await contract.submit('ReadAsset', { arguments: [id], endorsingOrganizations: ['Org9MSP'] }).then(
        () => assert.fail('an organisation that does not exist endorsed'),
        (error) => error,
    );
    assert.equal(missing.code, grpc.status.UNAVAILABLE);
    assert.match(missing.message, /failed to find any endorsing peers for org\(s\): Org9MSP/);
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

        await committedAt(contract, 'Org2MSP', id, 'Tom');
        const moved = await submitBySteps(contract, 'TransferAsset', id, 'Saptha');
        assert.equal(moved.result, 'Tom');
        console.log('ok submit by steps');

        await signsOffline(network, gateway);
        console.log('ok off-line signing');
        await receivesEvents(network, contract);
        console.log('ok chaincode events');
        await receivesBlocks(network, moved.status.blockNumber);
        await resumes(network, contract);
        console.log('ok checkpoints');
        await choosesEndorsers(contract);
        console.log('ok named organisations');
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
