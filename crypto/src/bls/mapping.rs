//! Messages as points of BLS12-381's curve (RFC 9380, suite `BLS12381G1_XMD:SHA-256_SSWU_RO_`), but for the last step.
//!
//! The standard ends with a multiplication, the same for all messages, that brings the point into the subgroup. Sums of many
//! hashed messages need it once, so it is left to who adds up ([`super::group::into_subgroup`]); it is two fifths of the work.
//! Public messages only, in variable time.

use std::sync::LazyLock;

use blst::{blst_p1, blst_p1_affine};

use super::field::Number;
use super::group;

/// Bytes that one coordinate is drawn from: 64, so that the reduction leaves no bias (RFC 9380 section 5.1).
const DRAWN_BYTES: usize = 64;

/// What RFC 9380 section 8.8.1 and appendix E.2 fix.
struct Suite {
    /// Coefficients of the isogenous curve y^2 = x^3 + ax + b.
    a: Number,
    b: Number,
    /// Z of the map: 11.
    z: Number,
    /// A root of -Z.
    root: Number,
    one: Number,
    /// k_(1, 0) to k_(1, 11).
    x_numerator: [Number; 12],
    /// The polynomial over the points of the isogeny's kernel, from its constant on; it ends with 1 * x^5. Its square is the
    /// standard's `x_den` and its cube `y_den`, as those of every isogeny in Velu's form.
    kernel: [Number; 5],
    /// k_(3, 0) to k_(3, 15).
    y_numerator: [Number; 16],
}

static SUITE: LazyLock<Suite> = LazyLock::new(|| Suite {
    a: Number::constant(
        "144698a3b8e9433d693a02c96d4982b0ea985383ee66a8d8e8981aefd881ac98936f8da0e0f97f5cf428082d584c1d",
    ),
    b: Number::constant(
        "12e2908d11688030018b12e8753eee3b2016c1f0f24f4070a0b9c14fcef35ef55a23215a316ceaa5d1cc48e98e172be0",
    ),
    z: Number::constant("0b"),
    root: Number::constant("0b").negated().root_up_to_sign(),
    one: Number::constant("01"),
    x_numerator: X_NUMERATOR.map(Number::constant),
    kernel: KERNEL.map(Number::constant),
    y_numerator: Y_NUMERATOR.map(Number::constant),
});

const X_NUMERATOR: [&str; 12] = [
    "11a05f2b1e833340b809101dd99815856b303e88a2d7005ff2627b56cdb4e2c85610c2d5f2e62d6eaeac1662734649b7",
    "17294ed3e943ab2f0588bab22147a81c7c17e75b2f6a8417f565e33c70d1e86b4838f2a6f318c356e834eef1b3cb83bb",
    "d54005db97678ec1d1048c5d10a9a1bce032473295983e56878e501ec68e25c958c3e3d2a09729fe0179f9dac9edcb0",
    "1778e7166fcc6db74e0609d307e55412d7f5e4656a8dbf25f1b33289f1b330835336e25ce3107193c5b388641d9b6861",
    "e99726a3199f4436642b4b3e4118e5499db995a1257fb3f086eeb65982fac18985a286f301e77c451154ce9ac8895d9",
    "1630c3250d7313ff01d1201bf7a74ab5db3cb17dd952799b9ed3ab9097e68f90a0870d2dcae73d19cd13c1c66f652983",
    "d6ed6553fe44d296a3726c38ae652bfb11586264f0f8ce19008e218f9c86b2a8da25128c1052ecaddd7f225a139ed84",
    "17b81e7701abdbe2e8743884d1117e53356de5ab275b4db1a682c62ef0f2753339b7c8f8c8f475af9ccb5618e3f0c88e",
    "80d3cf1f9a78fc47b90b33563be990dc43b756ce79f5574a2c596c928c5d1de4fa295f296b74e956d71986a8497e317",
    "169b1f8e1bcfa7c42e0c37515d138f22dd2ecb803a0c5c99676314baf4bb1b7fa3190b2edc0327797f241067be390c9e",
    "10321da079ce07e272d8ec09d2565b0dfa7dccdde6787f96d50af36003b14866f69b771f8c285decca67df3f1605fb7b",
    "6e08c248e260e70bd1e962381edee3d31d79d7e22c837bc23c0bf1bc24c6b68c24b1b80b64d391fa9c8ba2e8ba2d229",
];

const KERNEL: [&str; 5] = [
    "133341fb0962a34cb0504a9c4fada0a5090d38679b4c040d5d1c3afb023a3409fcc0815fea66d8b02bbef9c8b5a66e07",
    "0264908af037bcede00d054cf5d4775e83eb6cf63c76b969f8ed174fb59fcff78d201f46f6cfc4ed6552e59ce75177b0",
    "1335c502c1f54c49aceea65e87fd7203ba0f626f305fc0cfd606a5dae9f3c8e81a4b3b69600129fabd307c69bf319d39",
    "094440f65f408a6e930e16e3e92dd17bf60d6e9679a8d3d58593de55ac23703042d609537eb3549aac234d896ca82944",
    "04afe09d5cf4956a23b6b71f59d2b3407b415a774b7be81bbb6fa99cbc798e0ac98ba725a5bc328016b1c268b4766e85",
];

const Y_NUMERATOR: [&str; 16] = [
    "90d97c81ba24ee0259d1f094980dcfa11ad138e48a869522b52af6c956543d3cd0c7aee9b3ba3c2be9845719707bb33",
    "134996a104ee5811d51036d776fb46831223e96c254f383d0f906343eb67ad34d6c56711962fa8bfe097e75a2e41c696",
    "cc786baa966e66f4a384c86a3b49942552e2d658a31ce2c344be4b91400da7d26d521628b00523b8dfe240c72de1f6",
    "1f86376e8981c217898751ad8746757d42aa7b90eeb791c09e4a3ec03251cf9de405aba9ec61deca6355c77b0e5f4cb",
    "8cc03fdefe0ff135caf4fe2a21529c4195536fbe3ce50b879833fd221351adc2ee7f8dc099040a841b6daecf2e8fedb",
    "16603fca40634b6a2211e11db8f0a6a074a7d0d4afadb7bd76505c3d3ad5544e203f6326c95a807299b23ab13633a5f0",
    "4ab0b9bcfac1bbcb2c977d027796b3ce75bb8ca2be184cb5231413c4d634f3747a87ac2460f415ec961f8855fe9d6f2",
    "987c8d5333ab86fde9926bd2ca6c674170a05bfe3bdd81ffd038da6c26c842642f64550fedfe935a15e4ca31870fb29",
    "9fc4018bd96684be88c9e221e4da1bb8f3abd16679dc26c1e8b6e6a1f20cabe69d65201c78607a360370e577bdba587",
    "e1bba7a1186bdb5223abde7ada14a23c42a0ca7915af6fe06985e7ed1e4d43b9b3f7055dd4eba6f2bafaaebca731c30",
    "19713e47937cd1be0dfd0b8f1d43fb93cd2fcbcb6caf493fd1183e416389e61031bf3a5cce3fbafce813711ad011c132",
    "18b46a908f36f6deb918c143fed2edcc523559b8aaf0c2462e6bfe7f911f643249d9cdf41b44d606ce07c8a4d0074d8e",
    "b182cac101b9399d155096004f53f447aa7b12a3426b08ec02710e807b4633f06c851c1919211f20d4c04f00b971ef8",
    "245a394ad1eca9b72fc00ae7be315dc757b3b080d4c158013e6632d3c40659cc6cf90ad1c232a6442d9d3f5db980133",
    "5c129645e44cf1102a159f748c4a3fc5e673d81d7e86568d9ab0f5d396a7ce46ba1049b6579afb7866b1e715475224b",
    "15e6be4e990f03ce4ea50b3b42df2eb5cb181d8f84965a3957add4fa95af01b2b665027efec01c7704b456be69c8b604",
];

/// A point (x / z^2, y / z^3) of the isogenous curve.
#[derive(Clone, Copy)]
struct Isogenous {
    x: Number,
    y: Number,
    z: Number,
}

/// Hashes a message to a point of the curve, outside of the subgroup as a rule: [`group::into_subgroup`] gives what the
/// standard gives.
pub(super) fn hash(message: &[u8], suite: &[u8]) -> blst_p1_affine {
    let drawn = group::expand::<{ 2 * DRAWN_BYTES }>(message, suite);
    let (first, second) = drawn.split_at(DRAWN_BYTES);
    let point = map_both(Number::from_bytes(first), Number::from_bytes(second));
    group::affine_p1(&point).expect("invariant: nobody knows a message that hashes to the identity")
}

/// The sum of the points that two numbers map to.
fn map_both(first: Number, second: Number) -> blst_p1 {
    let (first, second) = (Half::new(first), Half::new(second));
    // Both inversions at once.
    let inverse = first.denominator.times(second.denominator).inverted();
    let (one, other) =
        (first.signed(inverse.times(second.denominator)), second.signed(inverse.times(first.denominator)));
    if let Some(sum) = add(&one, &other) {
        return onto_curve(&sum);
    }
    let mut sum = onto_curve(&one);
    group::add_p1(&mut sum, &onto_curve(&other));
    sum
}

/// A mapped number whose y may still have the wrong sign.
struct Half {
    number: Number,
    point: Isogenous,
    /// z^3, by which y is divided.
    denominator: Number,
}

impl Half {
    /// RFC 9380 section 6.6.2, without divisions (appendix F.2). The root of u / v is that of u * v divided by v, and v is z^3:
    /// the root of u * v is the y of Jacobian coordinates.
    fn new(number: Number) -> Self {
        let suite = &*SUITE;
        let scaled = suite.z.times(number.squared());
        let sum = scaled.squared().plus(scaled);
        let x = suite.b.times(sum.plus(suite.one));
        let z = suite.a.times(if sum == Number::ZERO { suite.z } else { sum.negated() });
        let z2 = z.squared();
        let denominator = z2.times(z);
        let right = x.squared().plus(suite.a.times(z2)).times(x).plus(suite.b.times(denominator));
        let product = right.times(denominator);
        let root = product.root_up_to_sign();
        let (x, y) = if root.squared() == product {
            (x, root)
        } else {
            (scaled.times(x), scaled.times(number).times(suite.root.times(root)))
        };
        Self { number, point: Isogenous { x: x.times(z), y, z }, denominator }
    }

    /// The point whose y is as odd as the number; takes the denominator's inverse.
    fn signed(&self, inverse: Number) -> Isogenous {
        let mut point = self.point;
        if point.y.times(inverse).is_odd() != self.number.is_odd() {
            point.y = point.y.negated();
        }
        point
    }
}

/// The sum of two points; `None` when they have the same x.
fn add(one: &Isogenous, other: &Isogenous) -> Option<Isogenous> {
    let (one_z2, other_z2) = (one.z.squared(), other.z.squared());
    let x = one.x.times(other_z2);
    let y = one.y.times(other_z2).times(other.z);
    let h = other.x.times(one_z2).minus(x);
    if h == Number::ZERO {
        return None;
    }
    let r = other.y.times(one_z2).times(one.z).minus(y);
    let h2 = h.squared();
    let h3 = h2.times(h);
    let v = x.times(h2);
    let sum_x = r.squared().minus(h3).minus(v.plus(v));
    let sum_y = r.times(v.minus(sum_x)).minus(y.times(h3));
    Some(Isogenous { x: sum_x, y: sum_y, z: h.times(one.z).times(other.z) })
}

/// The isogeny (RFC 9380 appendix E.2): with all polynomials made homogeneous in x and z^2, the image's Jacobian coordinates
/// are `x_num`, y * `y_num` and z * kernel.
fn onto_curve(point: &Isogenous) -> blst_p1 {
    let suite = &*SUITE;
    let z2 = point.z.squared();
    let mut powers = [z2; 15];
    for index in 1..powers.len() {
        powers[index] = powers[index - 1].times(z2);
    }
    let evaluate = |leading: Number, rest: &[Number]| {
        let below = rest.iter().rev().zip(&powers);
        below
            .fold(leading, |value, (coefficient, power)| value.times(point.x).plus(coefficient.times(*power)))
    };
    let [x_rest @ .., x_leading] = &suite.x_numerator;
    let [y_rest @ .., y_leading] = &suite.y_numerator;
    group::jacobian_p1(
        evaluate(*x_leading, x_rest),
        point.y.times(evaluate(*y_leading, y_rest)),
        point.z.times(evaluate(suite.one, &suite.kernel)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOMAIN: &[u8] = b"QUUX-V01-CS02-with-BLS12381G1_XMD:SHA-256_SSWU_RO_";

    #[test]
    fn hashed_messages_are_those_of_the_library() {
        for length in 0..200_usize {
            let message: Vec<u8> = (0..length).map(|place| (place * 31 + length) as u8).collect();
            let found = group::into_subgroup(&group::jacobian_of(&hash(&message, DOMAIN)));
            let found = group::affine_p1(&found).unwrap();
            assert_eq!(
                group::write_p1(&found),
                group::write_p1(&group::hash_to_p1(&message, DOMAIN)),
                "{length}"
            );
        }
    }

    #[test]
    fn every_pair_of_numbers_maps_to_the_librarys_point() {
        // 0 takes the map's special case; equal and opposite numbers make the sum's special cases.
        let numbers: Vec<Number> = (0..5_u8).map(|number| Number::from_bytes(&[number])).collect();
        let numbers: Vec<Number> = numbers.iter().flat_map(|number| [*number, number.negated()]).collect();
        for first in &numbers {
            for second in &numbers {
                let found = group::into_subgroup(&map_both(*first, *second));
                let expected = group::map_with_library(first.0, second.0);
                assert_eq!(
                    group::affine_p1(&found).map(|point| group::write_p1(&point)),
                    group::affine_p1(&expected).map(|point| group::write_p1(&point)),
                    "{first:?} {second:?}"
                );
            }
        }
    }
}
