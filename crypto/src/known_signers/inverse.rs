//! 1 / number modulo a prime of 256 bits, in variable time: only public values come here.
//!
//! The steps are those of Bernstein and Yang 2019 ("Fast constant-time gcd computation and modular inversion"), 62 at a time
//! on the lowest bits, in the variable-time form in which a step's zeros are shifted out at once. A third of the time of an
//! inversion step by step over whole numbers.

use super::field::{Element, Limbs, Modulus};

/// Bits of a digit.
const BITS: u32 = 62;

/// The lowest 62 bits.
const MASK: u64 = u64::MAX >> (64 - BITS);

/// Rounds of 62 steps that bring any number below 2^256 to 0: 741 steps are enough (theorem 11.2 of the paper).
const ROUNDS_MAX: usize = 12;

/// A signed number in digits of 62 bits, lowest first; all but the last are at least 0.
type Digits = [i64; 5];

/// What 62 steps do to two numbers, times 2^62.
struct Steps {
    u: i64,
    v: i64,
    q: i64,
    r: i64,
}

/// 1 / number; 0 for 0.
pub(super) fn inverted<M: Modulus>(number: Element<M>) -> Element<M> {
    Element::new(inverse_modulo::<M>(number.value()))
}

/// 1 / number modulo `M`, which must be prime; 0 for 0. The number is below the modulus.
fn inverse_modulo<M: Modulus>(number: Limbs) -> Limbs {
    let modulus = digits(M::LIMBS);
    // 1 / modulus modulo 2^62.
    let inverse = M::INVERSE.wrapping_neg() & MASK;
    let (mut d, mut e): (Digits, Digits) = ([0; 5], [1, 0, 0, 0, 0]);
    let (mut f, mut g) = (modulus, digits(number));
    let mut eta = -1;
    for _ in 0..ROUNDS_MAX {
        let steps = steps(&mut eta, f[0] as u64, g[0] as u64);
        (d, e) = step_modulo(&steps, &d, &e, &modulus, inverse);
        (f, g) = step(&steps, &f, &g);
        if g == [0; 5] {
            break;
        }
    }
    // f is 1 or -1, and d * number is f.
    limbs(&normalized(d, f[4] < 0, &modulus))
}

/// 62 steps on the lowest bits of f, which is odd, and g.
fn steps(eta: &mut i64, f: u64, g: u64) -> Steps {
    let (mut f, mut g) = (f, g);
    let (mut u, mut v, mut q, mut r) = (1_u64, 0_u64, 0_u64, 1_u64);
    let mut left = BITS;
    loop {
        // The bit at the place `left` ends the count.
        let zeros = (g | (u64::MAX << left)).trailing_zeros();
        g >>= zeros;
        u <<= zeros;
        v <<= zeros;
        *eta -= i64::from(zeros);
        left -= zeros;
        if left == 0 {
            break;
        }
        if *eta < 0 {
            *eta = -*eta;
            (f, g) = (g, f.wrapping_neg());
            (u, q) = (q, u.wrapping_neg());
            (v, r) = (r, v.wrapping_neg());
        }
        // As many steps as neither exchange the numbers nor end the round take one multiple of f, which clears their bits of
        // g; -g / f modulo 64, for f * f is 1 modulo 8 and f * (2 - f * f) the inverse of f modulo 64.
        let count = u32::try_from(*eta + 1).unwrap_or(BITS).min(left).min(6);
        let multiple = f.wrapping_mul(g).wrapping_mul(f.wrapping_mul(f).wrapping_sub(2)) & ((1 << count) - 1);
        g = g.wrapping_add(f.wrapping_mul(multiple));
        q = q.wrapping_add(u.wrapping_mul(multiple));
        r = r.wrapping_add(v.wrapping_mul(multiple));
    }
    Steps { u: u as i64, v: v as i64, q: q as i64, r: r as i64 }
}

/// The steps on whole numbers: both results are divisible by 2^62.
fn step(steps: &Steps, f: &Digits, g: &Digits) -> (Digits, Digits) {
    let wide = |a: i64, x: i64, b: i64, y: i64| i128::from(a) * i128::from(x) + i128::from(b) * i128::from(y);
    let (mut new_f, mut new_g) = ([0; 5], [0; 5]);
    let mut carry_f = wide(steps.u, f[0], steps.v, g[0]) >> BITS;
    let mut carry_g = wide(steps.q, f[0], steps.r, g[0]) >> BITS;
    for place in 1..5 {
        carry_f += wide(steps.u, f[place], steps.v, g[place]);
        carry_g += wide(steps.q, f[place], steps.r, g[place]);
        new_f[place - 1] = (carry_f as u64 & MASK) as i64;
        new_g[place - 1] = (carry_g as u64 & MASK) as i64;
        carry_f >>= BITS;
        carry_g >>= BITS;
    }
    (new_f[4], new_g[4]) = (carry_f as i64, carry_g as i64);
    (new_f, new_g)
}

/// The steps modulo the modulus: a multiple of it makes both results divisible by 2^62. They stay between -2 and 1 times it.
fn step_modulo(steps: &Steps, d: &Digits, e: &Digits, modulus: &Digits, inverse: u64) -> (Digits, Digits) {
    let row = |a: i64, b: i64| -> Digits {
        let mut times = 0_i64;
        if d[4] < 0 {
            times += a;
        }
        if e[4] < 0 {
            times += b;
        }
        let mut carry = i128::from(a) * i128::from(d[0]) + i128::from(b) * i128::from(e[0]);
        let low = inverse.wrapping_mul(carry as u64).wrapping_add(times as u64) & MASK;
        times -= low as i64;
        carry += i128::from(modulus[0]) * i128::from(times);
        carry >>= BITS;
        let mut new = [0; 5];
        for place in 1..5 {
            carry += i128::from(a) * i128::from(d[place]) + i128::from(b) * i128::from(e[place]);
            carry += i128::from(modulus[place]) * i128::from(times);
            new[place - 1] = (carry as u64 & MASK) as i64;
            carry >>= BITS;
        }
        new[4] = carry as i64;
        new
    };
    (row(steps.u, steps.v), row(steps.q, steps.r))
}

/// A number between -2 and 1 times the modulus, or its negative, brought between 0 and the modulus.
fn normalized(number: Digits, negative: bool, modulus: &Digits) -> Digits {
    let plus_modulus = |mut number: Digits| {
        if number[4] < 0 {
            number.iter_mut().zip(modulus).for_each(|(digit, of_modulus)| *digit += of_modulus);
        }
        number
    };
    let mut number = carried(plus_modulus(number));
    if negative {
        number.iter_mut().for_each(|digit| *digit = -*digit);
        number = carried(number);
    }
    carried(plus_modulus(number))
}

/// All digits but the last between 0 and 2^62.
fn carried(mut number: Digits) -> Digits {
    for place in 0..4 {
        number[place + 1] += number[place] >> BITS;
        number[place] &= MASK as i64;
    }
    number
}

fn digits(limbs: Limbs) -> Digits {
    let [a, b, c, d] = limbs;
    [a, a >> 62 | b << 2, b >> 60 | c << 4, c >> 58 | d << 6, d >> 56].map(|digit| (digit & MASK) as i64)
}

fn limbs(digits: &Digits) -> Limbs {
    let [a, b, c, d, e] = digits.map(|digit| digit as u64);
    [a | b << 62, b >> 2 | c << 60, c >> 4 | d << 58, d >> 6 | e << 56]
}

#[cfg(test)]
mod tests {
    use crypto_bigint::{Odd, U256};
    use proptest::prelude::*;

    use super::super::field::{P256Order, P256Prime, Sm2Order, Sm2Prime};
    use super::*;

    fn check<M: Modulus>(number: Limbs) {
        let modulus = Odd::new(U256::from_words(M::LIMBS)).unwrap();
        let number = U256::from_words(number).rem_vartime(modulus.as_nz_ref());
        let expected = number.invert_odd_mod_vartime(&modulus).into_option().map_or([0; 4], U256::to_words);
        assert_eq!(inverse_modulo::<M>(number.to_words()), expected, "{number} modulo {modulus}");
    }

    fn check_all(number: Limbs) {
        check::<P256Order>(number);
        check::<P256Prime>(number);
        check::<Sm2Order>(number);
        check::<Sm2Prime>(number);
    }

    #[test]
    fn edges_are_inverted_as_by_the_library() {
        for limb in [0, 1, 2, 3, u64::MAX, u64::MAX - 1, 1 << 63, 1 << 61, MASK, MASK + 1] {
            for place in 0..4 {
                let mut number = [0; 4];
                number[place] = limb;
                check_all(number);
                check_all(number.map(|limb| !limb));
            }
        }
        for modulus in [P256Order::LIMBS, P256Prime::LIMBS, Sm2Order::LIMBS, Sm2Prime::LIMBS] {
            for below in 1..20 {
                check_all([modulus[0].wrapping_sub(below), modulus[1], modulus[2], modulus[3]]);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn numbers_are_inverted_as_by_the_library(number in any::<[u64; 4]>(), shift in 0..256_u32) {
            check_all(number);
            check_all(U256::from_words(number).shr_vartime(shift).to_words());
        }
    }
}
