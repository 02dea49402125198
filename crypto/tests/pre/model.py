#!/usr/bin/env python3
"""An independent model of sealed data (crypto/src/pre.rs), with Python's big integers and hashlib alone.

    model.py generate        prints vectors for fixed seeds
    model.py check < vectors recomputes vectors from their seeds, opens what they hold, and says what differs

It shares nothing with the Rust code but the definition: SEC 1 (points), RFC 9380 section 5.3.1 (hashing to scalars), RFC 5869
(HKDF), SP 800-38D (GCM), FIPS 197 (AES), GB/T 32905 (SM3), GB/T 32907 (SM4), GB/T 32918.5 (SM2's curve).
"""

import hashlib
import json
import sys

# ---- SM3 (GB/T 32905) ----

M32 = 0xFFFFFFFF


def rol(x, n):
    n %= 32
    return ((x << n) | (x >> (32 - n))) & M32


def sm3(message):
    state = [0x7380166F, 0x4914B2B9, 0x172442D7, 0xDA8A0600, 0xA96F30BC, 0x163138AA, 0xE38DEE4D, 0xB0FB0E4E]
    padded = message + b"\x80" + bytes((55 - len(message)) % 64) + (8 * len(message)).to_bytes(8, "big")
    p0 = lambda x: x ^ rol(x, 9) ^ rol(x, 17)
    p1 = lambda x: x ^ rol(x, 15) ^ rol(x, 23)
    for start in range(0, len(padded), 64):
        w = [int.from_bytes(padded[start + 4 * i : start + 4 * i + 4], "big") for i in range(16)]
        for j in range(16, 68):
            w.append(p1(w[j - 16] ^ w[j - 9] ^ rol(w[j - 3], 15)) ^ rol(w[j - 13], 7) ^ w[j - 6])
        a, b, c, d, e, f, g, h = state
        for j in range(64):
            t = 0x79CC4519 if j < 16 else 0x7A879D8A
            ss1 = rol((rol(a, 12) + e + rol(t, j)) & M32, 7)
            ss2 = ss1 ^ rol(a, 12)
            ff = a ^ b ^ c if j < 16 else (a & b) | (a & c) | (b & c)
            gg = e ^ f ^ g if j < 16 else (e & f) | (~e & M32 & g)
            tt1 = (ff + d + ss2 + (w[j] ^ w[j + 4])) & M32
            tt2 = (gg + h + ss1 + w[j]) & M32
            a, b, c, d, e, f, g, h = tt1, a, rol(b, 9), c, p0(tt2), e, rol(f, 19), g
        state = [x ^ y for x, y in zip(state, (a, b, c, d, e, f, g, h))]
    return b"".join(x.to_bytes(4, "big") for x in state)


def sha256(message):
    return hashlib.sha256(message).digest()


# ---- block ciphers ----


def gf8(a, b):
    result = 0
    while b:
        if b & 1:
            result ^= a
        a = (a << 1) ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return result


def aes_box():
    box = []
    for x in range(256):
        y = next((i for i in range(256) if gf8(x, i) == 1), 0)
        z = y
        for n in range(1, 5):
            z ^= ((y << n) | (y >> (8 - n))) & 0xFF
        box.append(z ^ 0x63)
    return box


AES_BOX = aes_box()


def aes256(key):
    """FIPS 197; returns the encryption of one block."""
    words = [list(key[4 * i : 4 * i + 4]) for i in range(8)]
    rcon = 1
    for i in range(8, 60):
        word = words[-1]
        if i % 8 == 0:
            word = [AES_BOX[b] for b in word[1:] + word[:1]]
            word[0] ^= rcon
            rcon = gf8(rcon, 2)
        elif i % 8 == 4:
            word = [AES_BOX[b] for b in word]
        words.append([a ^ b for a, b in zip(words[i - 8], word)])
    keys = [sum(words[4 * r : 4 * r + 4], []) for r in range(15)]

    def encrypt(block):
        state = [a ^ b for a, b in zip(block, keys[0])]
        for r in range(1, 15):
            state = [AES_BOX[b] for b in state]
            state = [state[(i + 4 * (i % 4)) % 16] for i in range(16)]
            if r < 14:
                mixed = []
                for c in range(0, 16, 4):
                    s = state[c : c + 4]
                    for i in range(4):
                        mixed.append(gf8(s[i], 2) ^ gf8(s[(i + 1) % 4], 3) ^ s[(i + 2) % 4] ^ s[(i + 3) % 4])
                state = mixed
            state = [a ^ b for a, b in zip(state, keys[r])]
        return bytes(state)

    return encrypt


def sm4_box():
    """The S-box as an affine map, an inversion modulo x^8+x^7+x^6+x^5+x^4+x^2+1, and the same map again."""

    def product(a, b):
        result = 0
        while b:
            if b & 1:
                result ^= a
            a <<= 1
            if a & 0x100:
                a ^= 0x1F5
            b >>= 1
        return result

    def affine(x):
        # Bit i is the inner product with row i of a circulant matrix.
        y = 0
        for i in range(8):
            row = ((0xA7 << i) | (0xA7 >> (8 - i))) & 0xFF
            y |= (bin(row & x).count("1") & 1) << i
        return y ^ 0xD3

    inverse = [next((i for i in range(256) if product(x, i) == 1), 0) for x in range(256)]
    return [affine(inverse[affine(x)]) for x in range(256)]


SM4_BOX = sm4_box()


def sm4(key):
    """GB/T 32907; returns the encryption of one block."""
    tau = lambda x: int.from_bytes(bytes(SM4_BOX[b] for b in x.to_bytes(4, "big")), "big")
    fk = [0xA3B1BAC6, 0x56AA3350, 0x677D9197, 0xB27022DC]
    k = [int.from_bytes(key[4 * i : 4 * i + 4], "big") ^ fk[i] for i in range(4)]
    for i in range(32):
        ck = int.from_bytes(bytes((28 * i + 7 * j) % 256 for j in range(4)), "big")
        b = tau(k[i + 1] ^ k[i + 2] ^ k[i + 3] ^ ck)
        k.append(k[i] ^ b ^ rol(b, 13) ^ rol(b, 23))

    def encrypt(block):
        x = [int.from_bytes(block[4 * i : 4 * i + 4], "big") for i in range(4)]
        for i in range(32):
            b = tau(x[i + 1] ^ x[i + 2] ^ x[i + 3] ^ k[4 + i])
            x.append(x[i] ^ b ^ rol(b, 2) ^ rol(b, 10) ^ rol(b, 18) ^ rol(b, 24))
        return b"".join(x[35 - i].to_bytes(4, "big") for i in range(4))

    return encrypt


def gcm(encrypt, nonce, plaintext, associated):
    h = int.from_bytes(encrypt(bytes(16)), "big")

    def times_h(x):
        z, v = 0, h
        for i in range(127, -1, -1):
            if x >> i & 1:
                z ^= v
            v = (v >> 1) ^ (0xE1 << 120 if v & 1 else 0)
        return z

    def block(counter):
        return encrypt(nonce + counter.to_bytes(4, "big"))

    stream = b"".join(block(2 + i) for i in range((len(plaintext) + 15) // 16))
    ciphertext = bytes(a ^ b for a, b in zip(plaintext, stream))
    pad = lambda x: x + bytes(-len(x) % 16)
    lengths = (8 * len(associated)).to_bytes(8, "big") + (8 * len(ciphertext)).to_bytes(8, "big")
    data = pad(associated) + pad(ciphertext) + lengths
    y = 0
    for i in range(0, len(data), 16):
        y = times_h(y ^ int.from_bytes(data[i : i + 16], "big"))
    return ciphertext + bytes(a ^ b for a, b in zip(y.to_bytes(16, "big"), block(1)))


# ---- suites ----


class Suite:
    def __init__(self, name, tag, p, q, b, generator, hash_, cipher, key_bytes):
        self.name, self.tag, self.p, self.q, self.b = name, tag, p, q, b
        self.g, self.hash, self.cipher, self.key_bytes = generator, hash_, cipher, key_bytes
        self.u = self.second_generator()

    # Affine points (x, y); None is the point at infinity.

    def add(self, left, right):
        if left is None or right is None:
            return left or right
        (x1, y1), (x2, y2) = left, right
        if x1 == x2:
            if (y1 + y2) % self.p == 0:
                return None
            slope = (3 * x1 * x1 - 3) * pow(2 * y1, -1, self.p)
        else:
            slope = (y2 - y1) * pow(x2 - x1, -1, self.p)
        x = (slope * slope - x1 - x2) % self.p
        return x, (slope * (x1 - x) - y1) % self.p

    def mul(self, scalar, point):
        result = None
        for bit in bin(scalar % self.q)[2:]:
            result = self.add(result, result)
            if bit == "1":
                result = self.add(result, point)
        return result

    def encode(self, point):
        return bytes([2 + point[1] % 2]) + point[0].to_bytes(32, "big")

    def decode(self, data):
        x = int.from_bytes(data[1:], "big")
        square = (x**3 - 3 * x + self.b) % self.p
        # Both primes are 3 modulo 4.
        y = pow(square, (self.p + 1) // 4, self.p)
        if len(data) != 33 or data[0] not in (2, 3) or x >= self.p or y * y % self.p != square:
            return None
        return x, (y if y % 2 == data[0] % 2 else self.p - y)

    # Hashes.

    def expand(self, purpose, parts, length):
        tag = f"{self.tag}-{purpose}".encode()
        tag += bytes([len(tag)])
        first = self.hash(bytes(64) + framed(parts) + length.to_bytes(2, "big") + b"\0" + tag)
        last, output = bytes(32), b""
        for number in range(1, (length + 31) // 32 + 1):
            last = self.hash(bytes(a ^ b for a, b in zip(last, first)) + bytes([number]) + tag)
            output += last
        return output[:length]

    def scalar(self, purpose, *parts):
        return int.from_bytes(self.expand(purpose, parts, 48), "big") % self.q

    def hmac(self, key, message):
        key += bytes(64 - len(key))
        inner = self.hash(bytes(b ^ 0x36 for b in key) + message)
        return self.hash(bytes(b ^ 0x5C for b in key) + inner)

    def derive(self, purpose, secret, parts, length):
        info = framed([purpose.encode(), *parts])
        key, last, output = self.hmac(self.tag.encode(), secret), b"", b""
        for number in range(1, (length + 31) // 32 + 1):
            last = self.hmac(key, last + info + bytes([number]))
            output += last
        return output[:length]

    def encrypt(self, purpose, secret, parts, associated, plaintext):
        key = self.derive(purpose, secret, parts, self.key_bytes)
        return gcm(self.cipher(key), bytes(12), plaintext, associated)

    def second_generator(self):
        for counter in range(256):
            point = self.decode(b"\x02" + self.expand("second generator", [bytes([counter])], 32))
            if point:
                return point


def framed(parts):
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


SUITES = {
    "p256": Suite(
        "p256",
        "CONSORT-SEALED-V1-P256-SHA256-AES256GCM",
        2**256 - 2**224 + 2**192 + 2**96 - 1,
        0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
        0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
        (
            0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
            0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
        ),
        sha256,
        aes256,
        32,
    ),
    "sm2": Suite(
        "sm2",
        "CONSORT-SEALED-V1-SM2-SM3-SM4GCM",
        2**256 - 2**224 - 2**96 + 2**64 - 1,
        0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123,
        0x28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93,
        (
            0x32C4AE2C1F1981195F9904466A39C9948FE30BBFF2660BE1715A4589334C74C7,
            0xBC3736A2F4F6779C59BDCEE36B692153D0A9877CC62A474002DF32E52139F0A0,
        ),
        sm3,
        sm4,
        16,
    ),
}

# ---- the scheme ----


class Stream:
    """The randomness of vectors: SHA-256 of the seed and a counter, block after block; the rest of a block is dropped."""

    def __init__(self, seed):
        self.seed, self.counter = seed, 0

    def scalar(self, suite):
        data = b""
        while len(data) < 48:
            data += sha256(self.seed + self.counter.to_bytes(8, "big"))
            self.counter += 1
        return int.from_bytes(data[:48], "big") % suite.q


def place(s, places, index):
    return s.scalar("place", index.to_bytes(2, "big"), places)


def fragment_challenge(s, capsule, aux, points, commitment, index, grant, request):
    e, v, proof_e, proof_v, proof_u = points
    parts = [capsule, aux, e, v, commitment, proof_e, proof_v, proof_u, index.to_bytes(2, "big"), grant, request]
    return s.scalar("fragment", *parts, s.encode(s.u))


def compute(case):
    """Everything that a case's inputs determine."""
    s, stream = SUITES[case["suite"]], Stream(bytes.fromhex(case["seed"]))
    aux, plaintext, grant, request, context = (
        bytes.fromhex(case[name]) for name in ("aux", "plaintext", "grant", "request", "context")
    )
    t, n = case["threshold"], case["proxies"]
    num = lambda x: x.to_bytes(32, "big")
    a, b, c = (stream.scalar(s) for _ in range(3))
    big_a, big_b, big_c = (s.encode(s.mul(x, s.g)) for x in (a, b, c))
    out = {"owner": num(a), "reader": num(b), "proxy": num(c), "owner_public": big_a, "reader_public": big_b}

    r, u = stream.scalar(s), stream.scalar(s)
    e, v = s.mul(r, s.g), s.mul(u, s.g)
    check = (u + r * s.scalar("capsule", s.encode(e), s.encode(v), aux)) % s.q
    capsule = s.encode(e) + s.encode(v) + num(check)
    secret = s.encode(s.mul(r + u, s.decode(big_a)))
    out["capsule"] = capsule
    out["ciphertext"] = s.encrypt("record", secret, [s.encode(e), s.encode(v)], capsule + aux, plaintext)

    x = stream.scalar(s)
    big_x = s.encode(s.mul(x, s.g))
    with_x, with_a = s.encode(s.mul(b * x, s.g)), s.encode(s.mul(a * b, s.g))
    factor = s.scalar("factor", big_x, big_b, with_x, grant)
    places = s.expand("places", [big_a, big_b, with_a, grant], 32)
    polynomial = [a * pow(factor, -1, s.q) % s.q] + [stream.scalar(s) for _ in range(t - 1)]
    shares = []
    for index in range(1, n + 1):
        at = place(s, places, index)
        shares.append(sum(f * pow(at, power, s.q) for power, f in enumerate(polynomial)) % s.q)
    out["ephemeral"] = big_x
    out["shares"] = [index.to_bytes(2, "big") + num(share) for index, share in enumerate(shares, 1)]
    out["commitments"] = [s.encode(s.mul(share, s.u)) for share in shares]

    out["fragments"] = []
    for index, share in enumerate(shares, 1):
        blind = stream.scalar(s)
        points = [s.encode(s.mul(k, p)) for k, p in ((share, e), (share, v), (blind, e), (blind, v), (blind, s.u))]
        h = fragment_challenge(s, capsule, aux, points, out["commitments"][index - 1], index, grant, request)
        out["fragments"].append(index.to_bytes(2, "big") + b"".join(points) + num((blind + h * share) % s.q))

    blind = stream.scalar(s)
    point = s.encode(s.mul(blind, s.g))
    out["proof"] = point + num((blind + a * s.scalar("knowledge", big_a, point, context)) % s.q)

    k = stream.scalar(s)
    point = s.encode(s.mul(k, s.g))
    secret = s.encode(s.mul(k * c, s.g))
    out["message"] = point + s.encrypt("message", secret, [point, big_c, context], context, plaintext)
    derived = s.derive("secret key", sha256(bytes.fromhex(case["seed"])), [context], 48)
    out["derived"] = num(int.from_bytes(derived, "big") % s.q)
    return {name: [x.hex() for x in value] if isinstance(value, list) else value.hex() for name, value in out.items()}


def opens(case):
    """Whether a reader opens the case's record with its last fragments, all of which prove right, by the equations of an opening."""
    s = SUITES[case["suite"]]
    data = lambda name: bytes.fromhex(case[name])
    aux, grant, request, capsule = (data(name) for name in ("aux", "grant", "request", "capsule"))
    e, v, check = s.decode(capsule[:33]), s.decode(capsule[33:66]), int.from_bytes(capsule[66:], "big")
    h = s.scalar("capsule", capsule[:33], capsule[33:66], aux)
    if s.mul(check, s.g) != s.add(v, s.mul(h, e)):
        return False
    b = int.from_bytes(data("reader"), "big")
    big_a, big_b, big_x = data("owner_public"), data("reader_public"), data("ephemeral")
    factor = s.scalar("factor", big_x, big_b, s.encode(s.mul(b, s.decode(big_x))), grant)
    places = s.expand("places", [big_a, big_b, s.encode(s.mul(b, s.decode(big_a))), grant], 32)
    used = []
    for text in case["fragments"][-case["threshold"] :]:
        fragment = bytes.fromhex(text)
        index, response = int.from_bytes(fragment[:2], "big"), int.from_bytes(fragment[167:], "big")
        points = [fragment[2 + 33 * i : 35 + 33 * i] for i in range(5)]
        commitment = bytes.fromhex(case["commitments"][index - 1])
        h = fragment_challenge(s, capsule, aux, points, commitment, index, grant, request)
        e_i, v_i, e_2, v_2, u_2 = map(s.decode, points)
        for base, image, proof in ((e, e_i, e_2), (v, v_i, v_2), (s.u, s.decode(commitment), u_2)):
            if s.mul(response, base) != s.add(proof, s.mul(h, image)):
                return False
        used.append((place(s, places, index), s.add(e_i, v_i)))
    total = None
    for own, point in used:
        weight = factor
        for other, _ in used:
            if other != own:
                weight = weight * other * pow(other - own, -1, s.q) % s.q
        total = s.add(total, s.mul(weight, point))
    parts = [capsule[:33], capsule[33:66]]
    again = s.encrypt("record", s.encode(total), parts, capsule + aux, data("plaintext"))
    return again == data("ciphertext")


def inputs(suite, number, threshold, proxies):
    text = lambda string: string.encode().hex()
    return {
        "suite": suite,
        "seed": sha256(f"consort sealed data {suite} {number}".encode()).hex(),
        "threshold": threshold,
        "proxies": proxies,
        "aux": text("wards|_sealed|patient-17|3"),
        "plaintext": text("blood group 0-, allergic to penicillin" if number else ""),
        "grant": text(f"wards|grant-{number}"),
        "request": text(f"wards|request-{number}"),
        "context": text("wards|st-anna"),
    }


def check(case):
    expected = compute(case)
    wrong = [name for name, value in expected.items() if case.get(name) != value]
    if not wrong and not opens(case):
        wrong = ["opening"]
    return wrong


def main():
    if sm3(b"abc").hex() != "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0":
        sys.exit("the model's SM3 is wrong")
    key = bytes.fromhex("0123456789abcdeffedcba9876543210")
    if sm4(key)(key).hex() != "681edf34d206965e86b3e94f536e4246":
        sys.exit("the model's SM4 is wrong")
    if aes256(bytes(range(32)))(bytes(17 * i for i in range(16))).hex() != "8ea2b7ca516745bfeafc49904b496089":
        sys.exit("the model's AES is wrong")
    if sys.argv[1:] == ["generate"]:
        shapes = [(0, 1, 1), (1, 2, 3), (2, 3, 5)]
        cases = [inputs(suite, *shape) for suite in SUITES for shape in shapes]
        print(json.dumps([{**case, **compute(case)} for case in cases], indent=1))
    elif sys.argv[1:] == ["check"]:
        cases = json.load(sys.stdin)
        faults = [f"case {number}: {', '.join(wrong)}" for number, case in enumerate(cases) if (wrong := check(case))]
        if faults:
            sys.exit("\n".join(faults))
        print(f"{len(cases)} cases agree")
    else:
        sys.exit(__doc__)


main()
