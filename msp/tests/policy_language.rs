//! The policy language against outcomes observed from Fabric 3.1.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use consort_msp::policy::{parse, to_text};
use consort_protos::fabric::common::{
    MspRole, SignaturePolicy, SignaturePolicyEnvelope, msp_role::MspRoleType, signature_policy::Type,
};
use proptest::prelude::*;
use prost::Message;

fn rule_text(rule: &SignaturePolicy) -> String {
    match rule.r#type.as_ref().unwrap() {
        Type::SignedBy(index) => index.to_string(),
        Type::NOutOf(gate) => {
            let rules: Vec<String> = gate.rules.iter().map(rule_text).collect();
            format!("N({};{})", gate.n, rules.join(","))
        }
    }
}

fn principals(envelope: &SignaturePolicyEnvelope) -> String {
    let show = |principal: &[u8]| {
        let role = MspRole::decode(principal).unwrap();
        let kind = MspRoleType::try_from(role.role).unwrap().as_str_name().to_owned();
        format!("{}.{kind}", role.msp_identifier)
    };
    envelope.identities.iter().map(|principal| show(&principal.principal)).collect::<Vec<_>>().join(" ")
}

fn compiled(text: &str) -> (String, String) {
    let envelope = parse(text).unwrap();
    assert_eq!(envelope.version, 0);
    (rule_text(envelope.rule.as_ref().unwrap()), principals(&envelope))
}

fn refusal(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn policies_compile_as_fabric_compiles_them() {
    let pair = |rule: &str, principals: &str| (rule.to_owned(), principals.to_owned());
    assert_eq!(compiled("OR('A.member')"), pair("N(1;0)", "A.MEMBER"));
    assert_eq!(compiled("AND('A.member', 'B.peer')"), pair("N(2;0,1)", "A.MEMBER B.PEER"));
    assert_eq!(
        compiled("Or('A.member', And('B.member', OutOf(1,'C.member','D.member')))"),
        pair("N(1;3,N(2;2,N(1;0,1)))", "C.MEMBER D.MEMBER B.MEMBER A.MEMBER")
    );
    assert_eq!(compiled("OutOf(2, 'A.member','B.member','C.member')").0, "N(2;0,1,2)");
    assert_eq!(compiled("OutOf(0, 'A.member')").0, "N(0;0)");
    assert_eq!(compiled("OutOf(2, 'A.member')").0, "N(2;0)");
    for (text, n) in [("1.7", 1), ("'1'", 1), ("1+1", 2)] {
        assert_eq!(compiled(&format!("OutOf({text}, 'A.member','B.member')")).0, format!("N({n};0,1)"));
    }
    assert_eq!(compiled("AND('A.member','A.member')"), pair("N(2;0,1)", "A.MEMBER A.MEMBER"));
    assert_eq!(compiled("OR('A.B.member')").1, "A.B.MEMBER");
    assert_eq!(compiled("OR('A-B.1.member')").1, "A-B.1.MEMBER");
    for text in ["OR('A.member',)", "OR(\"A.member\")", "\tOR(\n `A.member` ) // all", "outof(1, 'A.member')"]
    {
        assert_eq!(compiled(text), pair("N(1;0)", "A.MEMBER"), "{text}");
    }
}

#[test]
fn common_mistakes_get_fabrics_words() {
    assert_eq!(
        refusal("OutOf(3, 'A.member')"),
        "invalid t-out-of-n predicate, t 3, n 1 (1:1)\n | outof(ID, 3, 'A.member')\n | ^"
    );
    assert!(
        refusal("OutOf(-1, 'A.member','B.member')")
            .starts_with("invalid t-out-of-n predicate, t -1, n 2 (1:1)")
    );
    assert_eq!(refusal("OR('A.Member')"), "unknown name A (1:10)\n | outof(1, A.Member)\n | .........^");
    for text in ["OR('A')", "OR('A.foo')"] {
        assert!(refusal(text).starts_with("unknown name A (1:10)"), "{text}");
    }
    assert!(refusal("OR('A_B.member')").starts_with("unknown name A_B (1:10)"));
    assert!(refusal("OR('.member')").starts_with("unexpected token Operator(\".\") (1:10)"));
    assert!(refusal("or('A.member', 'B.member')").starts_with("unexpected token Operator(\"or\") (1:1)"));
    for (text, name) in
        [("oR('A.member')", "oR"), ("FOO('A.member')", "FOO"), ("Outof(1,'A.member')", "Outof")]
    {
        assert!(refusal(text).starts_with(&format!("unknown name {name} (1:1)")), "{text}");
    }
    for text in ["OR()", "AND()", "OutOf(1)"] {
        assert!(
            refusal(text).starts_with("expected at least two arguments to NOutOf. Given 1 (1:1)"),
            "{text}"
        );
    }
    for text in ["'A.member'", "A.member"] {
        assert!(refusal(text).starts_with("unknown name A (1:1)"), "{text}");
    }
    assert_eq!(refusal(""), "unexpected token EOF");
    assert!(refusal("OR('A.member'").starts_with("unexpected token EOF (1:13)"));
    assert!(
        refusal("OR('A.member') OR('B.member')").starts_with("unexpected token Identifier(\"OR\") (1:16)")
    );
    assert!(refusal("OutOf(1,'A.member',2)").starts_with("unexpected type int (1:1)"));
    assert_eq!(refusal("1"), "invalid policy string '1'");
    assert!(parse("'A.member' && 'B.member'").is_err());
}

#[test]
fn deep_nesting_is_refused_instead_of_filling_the_stack() {
    let deep = format!("{}'A.member'{}", "OR(".repeat(100_000), ")".repeat(100_000));
    assert!(refusal(&deep).starts_with("gates are nested too deeply"));
}

fn policy_text() -> impl Strategy<Value = String> {
    let role = prop_oneof![Just("member"), Just("admin"), Just("client"), Just("peer"), Just("orderer")];
    let principal = ("[A-Za-z0-9][A-Za-z0-9.-]{0,8}", role).prop_map(|(msp, role)| format!("'{msp}.{role}'"));
    principal.prop_recursive(4, 32, 5, |inner| {
        (proptest::collection::vec(inner, 1..5), 0_usize..3, any::<prop::sample::Index>()).prop_map(
            |(arguments, gate, threshold)| {
                let list = arguments.join(", ");
                match gate {
                    0 => format!("AND({list})"),
                    1 => format!("OR({list})"),
                    _ => format!("OutOf({}, {list})", threshold.index(arguments.len() + 2)),
                }
            },
        )
    })
}

proptest! {
    #[test]
    fn a_printed_policy_reads_back_as_itself(inner in policy_text()) {
        let policy = parse(&format!("OR({inner})")).unwrap();
        prop_assert_eq!(parse(&to_text(&policy)).unwrap(), policy);
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,64}", like in "[AORNDOutOf(),'\"`.0-9 +/-]{0,48}") {
        let _ = parse(&text);
        let _ = parse(&like);
    }
}
