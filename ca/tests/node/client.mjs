// Fabric's published CA client (npm fabric-ca-client) against a running consort-ca: every call that it offers.
//
// Environment: CA_URL (https://localhost:port), CA_ROOT (file with the TLS root), CA_NAME, CA_ID, CA_SECRET.
// The authority must allow removal of identities and affiliations.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { X509Certificate } from 'node:crypto';

const require = createRequire(import.meta.url);
// The client logs refused calls to the console; here they are asked for.
process.env.HFC_LOGGING = '{}';
const FabricCAServices = require('fabric-ca-client');
const { User, Utils } = require('fabric-common');

const { CA_URL, CA_ROOT, CA_NAME, CA_ID, CA_SECRET } = process.env;
const root = readFileSync(CA_ROOT, 'utf8');
const cryptoSuite = Utils.newCryptoSuite();
cryptoSuite.setCryptoKeyStore(Utils.newCryptoKeyStore());
const ca = new FabricCAServices(CA_URL, { trustedRoots: [root], verify: true }, CA_NAME, cryptoSuite);

async function userOf(name, enrollment) {
    const user = new User(name);
    user.setCryptoSuite(cryptoSuite);
    await user.setEnrollment(enrollment.key, enrollment.certificate, 'Org1MSP');
    return user;
}

async function refused(promise, code) {
    await assert.rejects(promise, (error) => {
        const codes = (error.errors ?? []).map((entry) => entry.code);
        assert.ok(codes.includes(code), `expected code ${code}, got: ${error.message}`);
        return true;
    });
}

// enroll
const enrollment = await ca.enroll({ enrollmentID: CA_ID, enrollmentSecret: CA_SECRET });
assert.equal(enrollment.rootCertificate.trim(), root.trim());
const issued = new X509Certificate(enrollment.certificate);
assert.ok(issued.verify(new X509Certificate(root).publicKey));
assert.match(issued.subject, /OU=client/);
const admin = await userOf(CA_ID, enrollment);
await refused(ca.enroll({ enrollmentID: CA_ID, enrollmentSecret: 'wrong' }), 20);

// cainfo
const info = await ca.getCaInfo(admin);
assert.equal(info.caName, CA_NAME);

// register, and enroll what was registered
const secret = await ca.register(
    {
        enrollmentID: 'user1',
        role: 'client',
        affiliation: 'org1.department1',
        attrs: [{ name: 'email', value: 'user1@org1', ecert: true }, { name: 'hidden', value: 'x' }],
    },
    admin,
);
assert.ok(secret.length >= 12);
await refused(ca.register({ enrollmentID: 'user1', affiliation: 'org1.department1' }, admin), 74);
const user1 = await ca.enroll({ enrollmentID: 'user1', enrollmentSecret: secret });
assert.ok(Buffer.from(new X509Certificate(user1.certificate).raw).includes('"email":"user1@org1"'));
await refused(ca.enroll({ enrollmentID: 'user1', enrollmentSecret: secret }), 20); // one enrolment by default
const user1Context = await userOf('user1', user1);
await refused(ca.register({ enrollmentID: 'user2', affiliation: '' }, user1Context), 71);

// enroll with profile and chosen attributes
const given = { enrollmentID: 'peer9', enrollmentSecret: 'peer9pw', role: 'peer', affiliation: 'org1', maxEnrollments: -1 };
assert.equal(await ca.register(given, admin), 'peer9pw');
const tls = await ca.enroll({ enrollmentID: 'peer9', enrollmentSecret: 'peer9pw', profile: 'tls' });
assert.deepEqual(new X509Certificate(tls.certificate).keyUsage, ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
const chosen = await ca.enroll({
    enrollmentID: 'peer9',
    enrollmentSecret: 'peer9pw',
    attr_reqs: [{ name: 'hf.Type', optional: false }, { name: 'nothing', optional: true }],
});
assert.ok(Buffer.from(new X509Certificate(chosen.certificate).raw).includes('{"attrs":{"hf.Type":"peer"}}'));

// enroll with a signing request of one's own, and with a subject
const ownKey = cryptoSuite.generateEphemeralKey();
const withRequest = await ca.enroll({
    enrollmentID: 'peer9',
    enrollmentSecret: 'peer9pw',
    csr: ownKey.generateCSR('CN=peer9,O=Somebody,OU=admin'),
});
assert.equal(withRequest.key, undefined);
const requested = new X509Certificate(withRequest.certificate);
assert.match(requested.subject, /OU=peer/);
assert.doesNotMatch(requested.subject, /OU=admin/);
const named = await ca.enroll({ enrollmentID: 'peer9', enrollmentSecret: 'peer9pw', subject: 'CN=peer9,O=Org1' });
assert.match(new X509Certificate(named.certificate).subject, /O=Org1/);
await refused(ca.enroll({ enrollmentID: 'peer9', enrollmentSecret: 'peer9pw', subject: 'CN=admin' }), 77);
await refused(ca.enroll({ enrollmentID: 'peer9', enrollmentSecret: 'peer9pw', profile: 'ca' }), 71);
await refused(ca.enroll({ enrollmentID: 'peer9', enrollmentSecret: 'peer9pw', profile: 'nothing' }), 0);
const authority = await ca.enroll({ enrollmentID: CA_ID, enrollmentSecret: CA_SECRET, profile: 'ca' });
assert.ok(new X509Certificate(authority.certificate).ca);

// reenroll
const again = await ca.reenroll(user1Context, [{ name: 'email', optional: false }]);
assert.notEqual(again.certificate, user1.certificate);
const renewed = await userOf('user1', again);

// identities
const identities = ca.newIdentityService();
const created = await identities.create(
    { enrollmentID: 'user3', affiliation: 'org1', type: 'client', attrs: [{ name: 'a', value: '1' }], maxEnrollments: -1 },
    admin,
);
assert.ok(created.length >= 12);
const one = await identities.getOne('user3', admin);
assert.equal(one.result.id, 'user3');
assert.equal(one.result.caname, CA_NAME);
assert.ok(one.result.attrs.some((attribute) => attribute.name === 'a' && attribute.value === '1'));
const all = await identities.getAll(admin);
assert.deepEqual(all.result.identities.map((identity) => identity.id).sort(), [CA_ID, 'peer9', 'user1', 'user3'].sort());
const updated = await identities.update('user3', { affiliation: 'org1.department1', attrs: [{ name: 'a', value: '' }] }, admin);
assert.equal(updated.result.affiliation, 'org1.department1');
assert.ok(!updated.result.attrs.some((attribute) => attribute.name === 'a'));
await refused(identities.getOne('nobody', admin), 63);
const removed = await identities.delete('user3', admin, true);
assert.equal(removed.result.id, 'user3');

// affiliations
const affiliations = ca.newAffiliationService();
await affiliations.create({ name: 'org7.west', force: true }, admin);
assert.equal((await affiliations.getOne('org7', admin)).result.affiliations[0].name, 'org7.west');
await affiliations.update('org7', { name: 'org8', force: true }, admin);
assert.ok((await affiliations.getAll(admin)).result.affiliations.some((entry) => entry.name === 'org8'));
await refused(affiliations.create({ name: 'org8' }, admin), 60);
await affiliations.delete({ name: 'org8', force: true }, admin);
await refused(affiliations.getOne('org8', admin), 63);

// certificates
const certificates = ca.newCertificateService();
const listed = await certificates.getCertificates({ id: 'user1' }, admin);
assert.equal(listed.result.certs.length, 2);
await refused(certificates.getCertificates({}, user1Context), 71);
const ending = await certificates.getCertificates({ id: 'user1', expired_start: 'now', expired_end: '+400d' }, admin);
assert.equal(ending.result.certs.length, 2);
const revokedSoFar = await certificates.getCertificates({ revoked_start: '-1h', revoked_end: 'now' }, admin);
assert.equal(revokedSoFar.result.certs.length, 0);
const valid = await certificates.getCertificates({ id: 'user1', notexpired: true, notrevoked: true }, admin);
assert.equal(valid.result.certs.length, 2);

// revoke and the list of revoked certificates
const serial = new X509Certificate(user1.certificate).serialNumber;
const aki = akiOf(user1.certificate);
const byCertificate = await ca.revoke({ aki, serial, reason: 'keycompromise' }, admin);
assert.equal(byCertificate.result.RevokedCerts[0].Serial, serial.toLowerCase().replace(/^0+/, ''));
await refused(ca.revoke({ aki, serial }, admin), 66);
await refused(ca.reenroll(user1Context), 20);
const own = await ca.revoke({ enrollmentID: 'user1', gencrl: true }, renewed);
assert.equal(own.result.RevokedCerts.length, 1);
assert.match(Buffer.from(own.result.CRL, 'base64').toString(), /BEGIN X509 CRL/);
await refused(ca.revoke({ enrollmentID: 'nobody' }, admin), 10);
const dated = { revokedBefore: new Date(Date.now() + 1e6), expireAfter: new Date() };
assert.match(Buffer.from(await ca.generateCRL(dated, admin), 'base64').toString(), /BEGIN X509 CRL/);
const left = await certificates.getCertificates({ id: 'user1', notrevoked: true }, admin);
assert.equal(left.result.certs.length, 0);

console.log('every call of fabric-ca-client was answered as by Fabric CA');

/** The authority key identifier in a certificate (extension 2.5.29.35), in hexadecimal. */
function akiOf(pem) {
    const hex = Buffer.from(new X509Certificate(pem).raw).toString('hex');
    const found = /0603551d2304[0-9a-f]{2}30[0-9a-f]{2}80([0-9a-f]{2})/.exec(hex);
    const start = found.index + found[0].length;
    return hex.slice(start, start + parseInt(found[1], 16) * 2);
}
