// The published gateway client and private data: members write and read, others are refused, and the private-agreement example trades.
// Where things are comes from the environment; a failed expectation ends with exit status 1.

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs/promises';
import path from 'node:path';

import * as grpc from '@grpc/grpc-js';
import { StatusCode, connect, hash, signers } from '@hyperledger/fabric-gateway';

const { ORGANISATIONS, SECRET } = process.env;
const PORTS = JSON.parse(process.env.PORTS);
const CHANNEL = 'trade';
const text = new TextDecoder();

async function firstFile(folder) {
    const [name] = await fs.readdir(folder);
    return fs.readFile(path.join(folder, name));
}

/** A user of an organisation at its first peer. */
async function member(name) {
    const domain = `${name.toLowerCase()}.example.com`;
    const folder = path.join(ORGANISATIONS, domain);
    const host = `peer0.${domain}`;
    const roots = await fs.readFile(path.join(folder, 'peers', host, 'tls', 'ca.crt'));
    const client = new grpc.Client(`127.0.0.1:${PORTS[name]}`, grpc.credentials.createSsl(roots), {
        'grpc.ssl_target_name_override': host,
    });
    const msp = path.join(folder, 'users', `User1@${domain}`, 'msp');
    const gateway = connect({
        client,
        identity: { mspId: `${name}MSP`, credentials: await firstFile(path.join(msp, 'signcerts')) },
        signer: signers.newPrivateKeySigner(crypto.createPrivateKey(await firstFile(path.join(msp, 'keystore')))),
        hash: hash.sha256,
        evaluateOptions: () => ({ deadline: Date.now() + 15_000 }),
        endorseOptions: () => ({ deadline: Date.now() + 30_000 }),
        submitOptions: () => ({ deadline: Date.now() + 15_000 }),
        commitStatusOptions: () => ({ deadline: Date.now() + 60_000 }),
    });
    const network = gateway.getNetwork(CHANNEL);
    return {
        network,
        vault: network.getContract('vault'),
        agreement: network.getContract('agreement'),
        close: () => (gateway.close(), client.close()),
    };
}

/** Repeats until it works: another organisation's peer may be a block behind. */
async function soon(call) {
    const deadline = Date.now() + 30_000;
    for (;;) {
        try {
            return await call();
        } catch (error) {
            if (Date.now() > deadline) throw error;
            await new Promise((resolve) => setTimeout(resolve, 100));
        }
    }
}

/** Everything that a refusal says. */
async function refusal(call) {
    const error = await call.then(() => assert.fail('it was not refused'), (error) => error);
    return [error.message, ...(error.details ?? []).map((detail) => detail.message)].join('\n');
}

async function first(events, wanted) {
    try {
        for await (const event of events) {
            if (wanted(event)) return event;
        }
        return assert.fail('the stream ended before the event came');
    } finally {
        events.close();
    }
}

/** The private writes of a block that its reader may see, as one text. */
async function seenIn(network, startBlock) {
    const event = await first(await network.getBlockAndPrivateDataEvents({ startBlock }), () => true);
    const sets = [...event.getPrivateDataMapMap().entries()].map(([, set]) => Buffer.from(set.serializeBinary()).toString('latin1'));
    return sets.join('\n');
}

async function membersShare(maker, carrier, shop) {
    const value = Buffer.from(`${SECRET}-pair`);
    const submitted = await maker.vault.submitAsync('PutPrivate', { arguments: ['pair', 'price'], transientData: { value } });
    const { blockNumber, successful } = await submitted.getStatus();
    assert.ok(successful);
    for (const one of [maker, carrier]) {
        const read = await soon(() => one.vault.evaluateTransaction('GetPrivate', 'pair', 'price'));
        assert.equal(text.decode(read), value.toString());
        assert.ok((await seenIn(one.network, blockNumber)).includes(value.toString()), 'a member gets it with the block');
    }
    console.log('ok members write and read');
    const hashed = await soon(() => shop.vault.evaluateTransaction('HashPrivate', 'pair', 'price'));
    assert.equal(text.decode(hashed), crypto.createHash('sha256').update(value).digest('hex'));
    assert.equal(await seenIn(shop.network, blockNumber), '', 'others get nothing with the block');
    console.log('ok private data events');
    const nothing = await refusal(maker.vault.submit('PutPrivate', { arguments: ['pair', 'price'] }));
    assert.match(nothing, /the transient map lacks 'value'/);
    const transientData = { value };
    const few = await refusal(maker.vault.submit('PutPrivate', { arguments: ['everybody', 'price'], transientData }));
    assert.match(few, /required to disseminate to at least 4 peers, but know of only [0-3] eligible peers/);
    assert.ok(!few.includes(SECRET));
    console.log('ok writes that cannot be');
}

async function rangesAndPurging(maker, carrier, shop) {
    for (const key of ['a1', 'a2', 'b1']) {
        const transientData = { value: Buffer.from(`${SECRET}-${key}`) };
        await maker.vault.submit('PutPrivate', { arguments: ['pair', key], transientData });
    }
    const pairs = async (one) => text.decode(await one.vault.evaluateTransaction('RangePrivate', 'pair', 'a', 'b'));
    const expected = ['a1', 'a2'].map((key) => `${key}=${SECRET}-${key}\n`).join('');
    await soon(async () => assert.equal(await pairs(carrier), expected));
    const refused = await refusal(pairs(shop));
    assert.match(refused, /tx creator does not have read access permission on privatedata/);
    assert.ok(!refused.includes(SECRET));
    await maker.vault.submit('PurgePrivate', { arguments: ['pair', 'a1'] });
    const rest = `a2=${SECRET}-a2\n`;
    await soon(async () => assert.equal(await pairs(carrier), rest));
    console.log('ok ranges and purging');
}

async function othersAreRefused(shop) {
    const read = await refusal(shop.vault.evaluateTransaction('GetPrivate', 'pair', 'price'));
    assert.match(read, /tx creator does not have read access permission on privatedata in chaincodeName:vault collectionName: pair/);
    const transientData = { value: Buffer.from(`shop's own`), 'consort.salt': crypto.randomBytes(32) };
    const write = await refusal(shop.vault.submit('PutPrivate', { arguments: ['pair', 'price'], transientData }));
    assert.match(write, /tx creator does not have write access permission on privatedata/);
    const open = await refusal(shop.vault.submit('PutPrivate', { arguments: ['salted', 'price'], transientData }));
    assert.match(open, /ShopMSP is no member of collection salted of chaincode vault/);
    const missing = await refusal(shop.vault.evaluateTransaction('GetPrivate', 'nothing', 'price'));
    assert.match(missing, /collection \[nothing\] not defined in the collection config for chaincode \[vault\]/);
    for (const said of [read, write, open]) assert.ok(!said.includes(SECRET));
    console.log('ok others are refused');
}

async function hashesAreSalted(maker, carrier, shop) {
    const value = Buffer.from(`${SECRET}-salted`);
    const unsalted = await refusal(maker.vault.submit('PutPrivate', { arguments: ['salted', 'price'], transientData: { value } }));
    assert.match(unsalted, /has no entry consort\.salt of at least 32 bytes/);
    assert.ok(!unsalted.includes(SECRET));
    const transientData = { value, 'consort.salt': crypto.randomBytes(32) };
    await maker.vault.submit('PutPrivate', { arguments: ['salted', 'price'], transientData });
    const read = await soon(() => carrier.vault.evaluateTransaction('GetPrivate', 'salted', 'price'));
    assert.equal(text.decode(read), value.toString());
    const hashed = await soon(() => shop.vault.evaluateTransaction('HashPrivate', 'salted', 'price'));
    assert.notEqual(text.decode(hashed), crypto.createHash('sha256').update(value).digest('hex'));
    console.log('ok salted hashes');
}

/** A collection's endorsement policy stands instead of the chaincode's; what fails it stays with its block, for members alone. */
async function collectionsHaveTheirPolicies(maker, carrier, shop) {
    const value = Buffer.from(`${SECRET}-signed`);
    const put = (...endorsingOrganizations) =>
        maker.vault.submitAsync('PutPrivate', {
            arguments: ['signed', 'price'],
            transientData: { value },
            endorsingOrganizations,
        });
    const alone = await put('MakerMSP');
    const { blockNumber, code } = await alone.getStatus();
    assert.equal(code, StatusCode.ENDORSEMENT_POLICY_FAILURE);
    for (const one of [maker, carrier]) {
        await soon(async () => assert.ok((await seenIn(one.network, blockNumber)).includes(value.toString())));
        assert.match(await refusal(one.vault.evaluateTransaction('GetPrivate', 'signed', 'price')), /price does not exist/);
    }
    assert.equal(await seenIn(shop.network, blockNumber), '', 'others get nothing of it');
    const both = await put('MakerMSP', 'CarrierMSP');
    assert.ok((await both.getStatus()).successful);
    const read = await soon(() => carrier.vault.evaluateTransaction('GetPrivate', 'signed', 'price'));
    assert.equal(text.decode(read), value.toString());
    console.log('ok collection policies');
}

/** A value and its hash go with the fourth block after theirs, as the collection says. */
async function valuesLiveForSomeBlocks(maker, carrier) {
    const value = Buffer.from(`${SECRET}-brief`);
    const put = (collection, key) =>
        maker.vault.submitAsync('PutPrivate', { arguments: [collection, key], transientData: { value } });
    const { blockNumber } = await (await put('brief', 'price')).getStatus();
    for (const one of [maker, carrier]) {
        const read = await soon(() => one.vault.evaluateTransaction('GetPrivate', 'brief', 'price'));
        assert.equal(text.decode(read), value.toString());
    }
    let last = blockNumber;
    for (let written = 0; last < blockNumber + 4n; written += 1) {
        last = (await (await put('pair', `filler${written}`)).getStatus()).blockNumber;
    }
    for (const one of [maker, carrier]) {
        await soon(async () => {
            for (const call of ['GetPrivate', 'HashPrivate']) {
                assert.match(await refusal(one.vault.evaluateTransaction(call, 'brief', 'price')), /price does not exist/);
            }
        });
        assert.equal(await seenIn(one.network, blockNumber), '', 'nor does its block show it any more');
    }
    console.log('ok blocks to live');
}

/** The example private-agreement: an asset changes hands at a price that nobody else learns. */
async function trade(maker, carrier, shop) {
    const properties = Buffer.from(JSON.stringify({ size: 120, note: `${SECRET}-properties` }));
    const price = Buffer.from(JSON.stringify({ asset_id: 'land', price: 100, trade_id: `${SECRET}-trade` }));
    const by = (...organisations) => organisations.map((name) => `${name}MSP`);
    await maker.agreement.submit('CreateAsset', {
        arguments: ['land', 'for sale'],
        transientData: { asset_properties: properties },
        endorsingOrganizations: by('Maker'),
    });
    await maker.agreement.submit('AgreeToSell', {
        arguments: ['land'],
        transientData: { asset_price: price },
        endorsingOrganizations: by('Maker'),
    });
    await soon(() =>
        carrier.agreement.submit('AgreeToBuy', {
            arguments: ['land'],
            transientData: { asset_price: price },
            endorsingOrganizations: by('Carrier'),
        }),
    );
    await soon(() =>
        maker.agreement.submit('TransferAsset', {
            arguments: ['land', 'CarrierMSP'],
            transientData: { asset_price: price, asset_properties: properties },
            endorsingOrganizations: by('Maker', 'Carrier'),
        }),
    );
    const asset = await soon(() => shop.agreement.evaluateTransaction('ReadAsset', 'land'));
    assert.equal(JSON.parse(text.decode(asset)).id, 'land');
    const read = await soon(() => carrier.agreement.evaluateTransaction('ReadPrivateProperties', 'land'));
    assert.equal(text.decode(read), properties.toString());
    assert.match(await refusal(shop.agreement.evaluateTransaction('ReadPrivateProperties', 'land')), /no private properties/);
    console.log('ok private agreement');
}

async function main() {
    const members = await Promise.all(['Maker', 'Carrier', 'Shop'].map(member));
    const [maker, carrier, shop] = members;
    try {
        await membersShare(maker, carrier, shop);
        await rangesAndPurging(maker, carrier, shop);
        await othersAreRefused(shop);
        await hashesAreSalted(maker, carrier, shop);
        await collectionsHaveTheirPolicies(maker, carrier, shop);
        await valuesLiveForSomeBlocks(maker, carrier);
        await trade(maker, carrier, shop);
    } finally {
        members.forEach((one) => one.close());
    }
}

main().catch((error) => {
    console.error(error, error.details ?? '');
    process.exitCode = 1;
});
