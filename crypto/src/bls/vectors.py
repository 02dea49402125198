"""Makes vectors.json with py_ecc (PyPI, MIT), an implementation that shares no code with the one under test.

    python3 -m pip install py_ecc && python3 crypto/src/bls/vectors.py > crypto/src/bls/vectors.json

Signatures in G1, keys in G2, the ciphersuites of the proof-of-possession scheme (draft-irtf-cfrg-bls-signature).
"""

import hashlib
import json

from py_ecc.bls.g2_primitives import G1_to_pubkey, G2_to_signature
from py_ecc.bls.hash_to_curve import hash_to_G1
from py_ecc.optimized_bls12_381 import G2, add, curve_order, multiply, normalize

SIGNATURE = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_"
PROOF = b"BLS_POP_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_"
# The domain of RFC 9380, appendix J.9.1.
RFC_9380 = b"QUUX-V01-CS02-with-BLS12381G1_XMD:SHA-256_SSWU_RO_"


def hash_to_curve(message, domain):
    return hash_to_G1(message, domain, hashlib.sha256)


def sign(secret, message, domain):
    return multiply(hash_to_curve(message, domain), secret)


def statement(*fields):
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)


def point(value):
    x, y = normalize(value)
    return {"x": f"{int(x):096x}", "y": f"{int(y):096x}"}


def secrets(count):
    seeds = (hashlib.sha512(f"signer {number}".encode()).digest() for number in range(count))
    return [int.from_bytes(seed, "big") % (curve_order - 1) + 1 for seed in seeds]


def main():
    messages = [b"", b"abc", b"abcdef0123456789", b"q128_" + b"q" * 128, b"a512_" + b"a" * 512]
    hashed = [{"message": m.hex(), "point": point(hash_to_curve(m, RFC_9380))} for m in messages]
    signers = []
    for number, secret in enumerate(secrets(4)):
        key = bytes(G2_to_signature(multiply(G2, secret)))
        owner = {"msp_id": "Org1MSP", "key_info_hash": bytes(range(32)).hex(), "channel": "trade"}
        claim = statement(b"consort/bls-key/v1", key, b"Org1MSP", bytes(range(32)), b"trade")
        message = statement(b"consort/endorse/v1", b"trade", f"payload {number}".encode())
        signers.append(
            {
                "secret": f"{secret:064x}",
                "key": key.hex(),
                "owner": owner,
                "proof": bytes(G1_to_pubkey(sign(secret, claim, PROOF))).hex(),
                "payload": f"payload {number}",
                "signature": bytes(G1_to_pubkey(sign(secret, message, SIGNATURE))).hex(),
            }
        )
    together = statement(b"consort/endorse/v1", b"trade", b"all of them")
    total = None
    for secret in secrets(4):
        one = sign(secret, together, SIGNATURE)
        total = one if total is None else add(total, one)
    aggregate = {"payload": "all of them", "signature": bytes(G1_to_pubkey(total)).hex()}
    print(json.dumps({"hash_to_curve": hashed, "signers": signers, "aggregate": aggregate}, indent=1))


main()
