// The older published client (fabric-network 2.2) against a running network: discovery, endorsement at the peers, broadcast to
// the orderers, event listeners, checkpoints. It is configured by a connection profile, as Fabric's sample applications are.
// A failed expectation ends with exit status 1.

import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import path from 'node:path';

import './hosts.mjs';

import fabric from 'fabric-network';

const { CRYPTO_PATH, CONNECTION_PROFILE, MSP_ID, USER_NAME, SCRATCH } = process.env;
const CHANNEL = process.env.CHANNEL_NAME ?? 'mychannel';
const CHAINCODE = process.env.CHAINCODE_NAME ?? 'basic';
const PATIENCE = 30_000;

const { DefaultCheckpointers, DefaultEventHandlerStrategies, DefaultQueryHandlerStrategies, Gateway, Wallets } = fabric;

async function firstFile(folder) {
    const [name] = await fs.readdir(folder);
    return fs.readFile(path.join(folder, name), 'utf8');
}

async function walletOf(user) {
    const msp = path.join(CRYPTO_PATH, 'users', user, 'msp');
    const wallet = await Wallets.newInMemoryWallet();
    const credentials = {
        certificate: await firstFile(path.join(msp, 'signcerts')),
        privateKey: await firstFile(path.join(msp, 'keystore')),
    };
    await wallet.put(user, { type: 'X.509', mspId: MSP_ID, credentials });
    return wallet;
}

async function connect(options) {
    const gateway = new Gateway();
    const profile = JSON.parse(await fs.readFile(CONNECTION_PROFILE, 'utf8'));
    await gateway.connect(profile, { wallet: await walletOf(USER_NAME), identity: USER_NAME, ...options });
    return gateway;
}

/** Waits for a promise, but not for ever. */
async function soon(promise, what) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`${what} did not happen`)), PATIENCE);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Starts listening; gives a promise of the first event that is wanted, whether it came already or is to come. */
async function listen(add, remove, options) {
    const seen = [];
    let look = () => {};
    const listener = async (event) => {
        seen.push(event);
        look();
    };
    await add(listener, options);
    const first = (wanted, what) =>
        soon(
            new Promise((resolve) => {
                look = () => {
                    const found = seen.find(wanted);
                    if (found) {
                        resolve(found);
                    }
                };
                look();
            }),
            what,
        );
    return { first, stop: () => remove(listener) };
}

async function submits(contract, id) {
    const transaction = contract.createTransaction('CreateAsset');
    await transaction.submit(id, 'yellow', '5', 'Tom', '1300');
    const read = JSON.parse((await contract.evaluateTransaction('ReadAsset', id)).toString());
    assert.equal(read.Owner, 'Tom');
    return transaction.getTransactionId();
}

async function discovers(network) {
    const channel = network.getChannel();
    const peers = channel.getEndorsers().map((peer) => peer.name);
    assert.ok(peers.some((name) => name.startsWith('peer0.org1')), `discovered ${peers}`);
    assert.ok(peers.some((name) => name.startsWith('peer0.org2')), `discovered ${peers}`);
    assert.equal(channel.getCommitters().length, 3, 'three orderers were expected');
    assert.deepEqual([...channel.getMspids()].sort(), ['OrdererMSP', 'Org1MSP', 'Org2MSP']);
    const results = await network.discoveryService.getDiscoveryResults();
    const heights = results.peers_by_org.Org2MSP.peers.map((peer) => Number(peer.ledgerHeight));
    assert.ok(heights.every((height) => height > 1), `heights ${heights}`);
}

async function listens(network, contract) {
    const id = `listened${Date.now()}`;
    const events = await listen(
        (listener) => contract.addContractListener(listener),
        (listener) => contract.removeContractListener(listener),
    );
    const byType = {};
    for (const type of ['full', 'filtered', 'private']) {
        byType[type] = await listen(
            (listener, options) => network.addBlockListener(listener, options),
            (listener) => network.removeBlockListener(listener),
            { type },
        );
    }
    const transactionId = await submits(contract, id);
    const isWanted = (event) => event.eventName === 'CreateAsset' && JSON.parse(event.payload.toString()).ID === id;
    const event = await events.first(isWanted, 'the chaincode event');
    assert.equal(event.chaincodeId, CHAINCODE);
    assert.equal(event.getTransactionEvent().transactionId, transactionId);
    assert.equal(event.getTransactionEvent().status, 'VALID');
    const holds = (block) => block.getTransactionEvents().some((transaction) => transaction.transactionId === transactionId);
    for (const [type, { first, stop }] of Object.entries(byType)) {
        await first(holds, `the ${type} block event`);
        stop();
    }
    events.stop();
    return event.getTransactionEvent().getBlockEvent().blockNumber;
}

async function resumesFromCheckpoint(network, contract, blockNumber) {
    const file = path.join(SCRATCH, 'checkpoint.json');
    const start = await DefaultCheckpointers.file(file);
    await start.setBlockNumber(blockNumber);
    const replay = await listen(
        (listener, options) => network.addBlockListener(listener, options),
        (listener) => network.removeBlockListener(listener),
        { checkpointer: start },
    );
    await replay.first((event) => event.blockNumber.equals(blockNumber), 'the replayed block');
    replay.stop();
    const stored = await start.getBlockNumber();
    assert.ok(stored.greaterThanOrEqual(blockNumber), `the checkpoint is at ${stored}`);
}

async function refuses(contract) {
    const missing = await contract.evaluateTransaction('ReadAsset', 'nobody').then(
        () => assert.fail('reading a missing asset succeeded'),
        (error) => error,
    );
    assert.match(missing.message, /The asset nobody does not exist/);
    const refused = await contract.submitTransaction('UpdateAsset', 'nobody', 'blue', '5', 'Tomoko', '300').then(
        () => assert.fail('updating a missing asset succeeded'),
        (error) => error,
    );
    assert.match(refused.message, /The asset nobody does not exist/);
}

/** Everything that the older client does by itself: plan, endorse, broadcast, wait for the event. */
async function withDiscovery() {
    const gateway = await connect({ discovery: { enabled: true, asLocalhost: true } });
    try {
        const network = await gateway.getNetwork(CHANNEL);
        const contract = network.getContract(CHAINCODE);
        await discovers(network);
        console.log('ok discovery');
        await submits(contract, `older${Date.now()}`);
        console.log('ok endorse and broadcast');

        const named = contract.createTransaction('CreateAsset').setEndorsingOrganizations('Org1MSP', 'Org2MSP');
        await named.submit(`named${Date.now()}`, 'red', '1', 'Ada', '1');
        console.log('ok named organisations');

        const blockNumber = await listens(network, contract);
        console.log('ok listeners');
        await resumesFromCheckpoint(network, contract, blockNumber);
        console.log('ok checkpoint');
        await refuses(contract);
        console.log('ok refusals');
    } finally {
        gateway.disconnect();
    }
}

/** The application's choices of peers for queries and of events to wait for. */
async function withOtherStrategies() {
    const gateway = await connect({
        discovery: { enabled: true, asLocalhost: true },
        eventHandlerOptions: { strategy: DefaultEventHandlerStrategies.NETWORK_SCOPE_ALLFORTX },
        queryHandlerOptions: { strategy: DefaultQueryHandlerStrategies.PREFER_MSPID_SCOPE_ROUND_ROBIN },
    });
    try {
        const contract = (await gateway.getNetwork(CHANNEL)).getContract(CHAINCODE);
        await submits(contract, `strategies${Date.now()}`);
        console.log('ok strategies');
    } finally {
        gateway.disconnect();
    }
}

/** Nodes at the host names that discovery tells, as across machines. */
async function withHostNames() {
    const gateway = await connect({ discovery: { enabled: true, asLocalhost: false } });
    try {
        const network = await gateway.getNetwork(CHANNEL);
        await submits(network.getContract(CHAINCODE), `hosts${Date.now()}`);
        const channel = network.getChannel();
        const addresses = [...channel.getEndorsers(), ...channel.getCommitters()].map((node) => node.endpoint.addr);
        for (const host of ['peer0.org2.example.com:', 'orderer.example.com:']) {
            assert.ok(addresses.some((address) => address.startsWith(host)), `${host} is none of ${addresses}`);
        }
        console.log('ok host names');
    } finally {
        gateway.disconnect();
    }
}

async function main() {
    await withDiscovery();
    await withOtherStrategies();
    await withHostNames();
}

main().then(
    // The client keeps sockets open for a while after disconnect.
    () => process.exit(0),
    (error) => {
        console.error(error);
        process.exit(1);
    },
);
