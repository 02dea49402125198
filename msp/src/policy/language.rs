//! The textual signature policy language: `AND('Org1MSP.peer', OR('Org2MSP.admin', 'Org3MSP.member'))`.
//!
//! Source: Hyperledger Fabric, "Endorsement policies" (endorsement policy syntax) and `common/policydsl`.
//! Gates are `AND`, `OR` and `OutOf` with a number first; arguments are quoted principals or gates.
//! Nested gates are evaluated before the outer gate's own strings, so inner principals get the lower indices.

use consort_protos::fabric::common::{
    MspPrincipal, MspRole, SignaturePolicy, SignaturePolicyEnvelope,
    msp_principal::Classification,
    msp_role::MspRoleType,
    signature_policy::{NOutOf, Type},
};
use prost::Message;

use super::lexer::{Lexer, Token, TokenKind, located};

/// How deep gates may be nested: far more than any readable policy, and shallow enough for the stack.
pub const MAX_NESTING: usize = 48;

/// Why a policy text was refused; the text imitates the messages operators know from Fabric's tools.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PolicyTextError(pub(crate) String);

/// Reads a policy text.
///
/// # Errors
/// When the text is not a policy: a syntax error, a principal that is not `<MSP id>.<role>`, or a number that
/// the gate cannot have.
pub fn parse(text: &str) -> Result<SignaturePolicyEnvelope, PolicyTextError> {
    let expression = Parser::new(text)?.expression_only()?;
    let gate = match expression {
        Argument::Gate(gate) => gate,
        Argument::Number(number) => return Err(PolicyTextError(format!("invalid policy string '{number}'"))),
        Argument::Text(principal) => return Err(unknown_name(&principal, &principal, 0)),
    };
    gate.check_arguments(text)?;
    gate.check_principals()?;
    let mut identities = Vec::new();
    let rule = gate.compile(&gate, &mut identities)?;
    Ok(SignaturePolicyEnvelope { version: 0, rule: Some(rule), identities })
}

/// Prints a policy as text that [`parse`] reads back to the same policy, as long as the policy is one that the
/// language can express (role principals only, numbers in range).
///
/// Other principals are printed in angle brackets, for people to read.
#[must_use]
pub fn to_text(policy: &SignaturePolicyEnvelope) -> String {
    let mut out = String::new();
    match &policy.rule {
        Some(rule) => print_rule(rule, &policy.identities, MAX_NESTING, &mut out),
        None => out.push_str("<empty>"),
    }
    out
}

fn print_rule(rule: &SignaturePolicy, identities: &[MspPrincipal], depth: usize, out: &mut String) {
    match &rule.r#type {
        Some(Type::NOutOf(_)) if depth == 0 => out.push_str("<nested too deeply>"),
        Some(Type::NOutOf(gate)) => {
            let all = usize::try_from(gate.n) == Ok(gate.rules.len());
            match gate.n {
                1 => out.push_str("OR("),
                _ if all && gate.n > 0 => out.push_str("AND("),
                n => out.push_str(&format!("OutOf({n}, ")),
            }
            for (index, rule) in gate.rules.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                print_rule(rule, identities, depth - 1, out);
            }
            out.push(')');
        }
        Some(Type::SignedBy(index)) => {
            let principal = usize::try_from(*index).ok().and_then(|index| identities.get(index));
            match principal.map(super::super::principal::describe) {
                Some(text) if is_principal(&text) => out.push_str(&format!("'{text}'")),
                Some(text) => out.push_str(&format!("<{text}>")),
                None => out.push_str(&format!("<principal {index} missing>")),
            }
        }
        None => out.push_str("<empty>"),
    }
}

/// An argument of a gate, as written.
enum Argument {
    Gate(Gate),
    Number(i64),
    Text(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum GateKind {
    And,
    Or,
    OutOf,
}

/// One gate with its arguments. `number` tells gates of one policy apart (for error positions), `position` is
/// where it stands in the text.
struct Gate {
    kind: GateKind,
    position: usize,
    number: usize,
    arguments: Vec<Argument>,
}

impl Gate {
    /// What the first pass of Fabric's tool refuses: arguments of a wrong kind, inner gates first.
    fn check_arguments(&self, text: &str) -> Result<(), PolicyTextError> {
        for argument in &self.arguments {
            if let Argument::Gate(gate) = argument {
                gate.check_arguments(text)?;
            }
        }
        let fail = |message: String| Err(located(&message, text, self.position));
        let operands = match self.kind {
            GateKind::OutOf if self.arguments.len() < 2 => {
                let given = self.arguments.len();
                return fail(format!("expected at least two arguments to NOutOf. Given {given}"));
            }
            GateKind::OutOf => &self.arguments[1..],
            _ => &self.arguments[..],
        };
        if self.kind == GateKind::OutOf && self.threshold().is_none() {
            return fail("the first argument of OutOf must be a number".to_owned());
        }
        if operands.iter().any(|argument| matches!(argument, Argument::Number(_))) {
            return fail("unexpected type int".to_owned());
        }
        if operands.is_empty() {
            return Err(located(
                "expected at least two arguments to NOutOf. Given 1",
                &self.normalised(false).0,
                0,
            ));
        }
        Ok(())
    }

    /// Refuses strings that are no principals, in the words of Fabric's second pass.
    fn check_principals(&self) -> Result<(), PolicyTextError> {
        let Some(wrong) = self.first_wrong_principal() else { return Ok(()) };
        let (text, _, wrong_at) = self.normalised(false);
        Err(unknown_name(wrong, &text, wrong_at.unwrap_or(0)))
    }

    fn first_wrong_principal(&self) -> Option<&str> {
        self.operands().iter().find_map(|argument| match argument {
            Argument::Gate(gate) => gate.first_wrong_principal(),
            Argument::Text(text) if !is_principal(text) => Some(text.as_str()),
            _ => None,
        })
    }

    fn operands(&self) -> &[Argument] {
        if self.kind == GateKind::OutOf {
            self.arguments.get(1..).unwrap_or_default()
        } else {
            &self.arguments
        }
    }

    /// How many operands must hold, when that is written as a number.
    fn threshold(&self) -> Option<i64> {
        match self.kind {
            GateKind::And => i64::try_from(self.arguments.len()).ok(),
            GateKind::Or => Some(1),
            GateKind::OutOf => match self.arguments.first()? {
                Argument::Number(number) => Some(*number),
                Argument::Text(text) => text.parse().ok(),
                Argument::Gate(_) => None,
            },
        }
    }

    /// The policy in the one gate that the others stand for; with the character position of every gate by its
    /// number, and of the first string that is no principal.
    fn normalised(&self, with_context: bool) -> (String, Vec<(usize, usize)>, Option<usize>) {
        let mut out = (String::new(), Vec::new(), None);
        self.normalise_into(with_context, &mut out);
        out
    }

    fn normalise_into(&self, with_context: bool, out: &mut (String, Vec<(usize, usize)>, Option<usize>)) {
        out.1.push((self.number, out.0.chars().count()));
        out.0.push_str(if with_context { "outof(ID, " } else { "outof(" });
        out.0.push_str(&self.threshold().unwrap_or(0).to_string());
        for argument in self.operands() {
            out.0.push_str(", ");
            match argument {
                Argument::Gate(gate) => gate.normalise_into(with_context, out),
                Argument::Text(text) if is_principal(text) => out.0.push_str(&format!("'{text}'")),
                Argument::Text(text) => {
                    out.2.get_or_insert(out.0.chars().count());
                    out.0.push_str(text);
                }
                Argument::Number(number) => out.0.push_str(&number.to_string()),
            }
        }
        out.0.push(')');
    }

    /// Builds the rule; `identities` collects the principals, inner gates first.
    fn compile(
        &self,
        root: &Gate,
        identities: &mut Vec<MspPrincipal>,
    ) -> Result<SignaturePolicy, PolicyTextError> {
        let operands = self.operands();
        let mut rules: Vec<Option<SignaturePolicy>> = Vec::with_capacity(operands.len());
        for argument in operands {
            rules.push(match argument {
                Argument::Gate(gate) => Some(gate.compile(root, identities)?),
                _ => None,
            });
        }
        let threshold = self.threshold().unwrap_or(0);
        let count = operands.len();
        let allowed = i64::try_from(count).unwrap_or(i64::MAX).saturating_add(1);
        if threshold < 0 || threshold > allowed {
            let (text, positions, _) = root.normalised(true);
            let position =
                positions.iter().find(|(number, _)| *number == self.number).map_or(0, |found| found.1);
            let message = format!("invalid t-out-of-n predicate, t {threshold}, n {count}");
            return Err(located(&message, &text, position));
        }
        for (rule, argument) in rules.iter_mut().zip(operands) {
            if let Argument::Text(text) = argument {
                let index = i32::try_from(identities.len())
                    .map_err(|_| PolicyTextError("too many principals".to_owned()))?;
                identities.push(role_principal(text).ok_or_else(|| unknown_name(text, text, 0))?);
                *rule = Some(SignaturePolicy { r#type: Some(Type::SignedBy(index)) });
            }
        }
        let n = i32::try_from(threshold).map_err(|_| PolicyTextError("number too large".to_owned()))?;
        let gate = NOutOf { n, rules: rules.into_iter().flatten().collect() };
        Ok(SignaturePolicy { r#type: Some(Type::NOutOf(gate)) })
    }
}

fn unknown_name(word: &str, text: &str, position: usize) -> PolicyTextError {
    let name: String = word.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    match word.chars().next() {
        None => PolicyTextError("unexpected token EOF".to_owned()),
        Some(first) if name.is_empty() => {
            located(&format!("unexpected token Operator(\"{first}\")"), text, position)
        }
        Some(_) => located(&format!("unknown name {name}"), text, position),
    }
}

/// Whether a string is `<MSP id>.<role>`, with an MSP id of letters, digits, `.` and `-`.
fn is_principal(text: &str) -> bool {
    split_principal(text).is_some()
}

fn split_principal(text: &str) -> Option<(&str, MspRoleType)> {
    let (msp, role) = text.rsplit_once('.')?;
    let role = match role {
        "admin" => MspRoleType::Admin,
        "member" => MspRoleType::Member,
        "client" => MspRoleType::Client,
        "peer" => MspRoleType::Peer,
        "orderer" => MspRoleType::Orderer,
        _ => return None,
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    (!msp.is_empty() && msp.chars().all(legal)).then_some((msp, role))
}

fn role_principal(text: &str) -> Option<MspPrincipal> {
    let (msp, role) = split_principal(text)?;
    let role = MspRole { msp_identifier: msp.to_owned(), role: role.into() };
    Some(MspPrincipal {
        principal_classification: Classification::Role.into(),
        principal: role.encode_to_vec().into(),
    })
}

struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    token: Token<'a>,
    gates: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self, PolicyTextError> {
        let mut lexer = Lexer::new(text);
        let token = lexer.next_token()?;
        Ok(Self { text, lexer, token, gates: 0 })
    }

    fn expression_only(mut self) -> Result<Argument, PolicyTextError> {
        let expression = self.expression(MAX_NESTING)?;
        match self.token.kind {
            TokenKind::End => Ok(expression),
            _ => Err(self.unexpected()),
        }
    }

    fn advance(&mut self) -> Result<Token<'a>, PolicyTextError> {
        let next = self.lexer.next_token()?;
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn expression(&mut self, depth: usize) -> Result<Argument, PolicyTextError> {
        match self.token.kind {
            TokenKind::Text(text) => {
                self.advance()?;
                Ok(Argument::Text(text.to_owned()))
            }
            TokenKind::Number(_) | TokenKind::Operator("-" | "+") => Ok(Argument::Number(self.sum()?)),
            TokenKind::Name("and" | "or" | "not") => {
                let TokenKind::Name(name) = self.token.kind else { return Err(self.unexpected()) };
                Err(self.fail(&format!("unexpected token Operator(\"{name}\")"), self.token.position))
            }
            TokenKind::Name(name) => self.gate(name, depth),
            _ => Err(self.unexpected()),
        }
    }

    fn sum(&mut self) -> Result<i64, PolicyTextError> {
        let mut total: i64 = 0;
        let mut sign: i64 = 1;
        loop {
            match self.token.kind {
                TokenKind::Operator("-") => sign = -sign,
                TokenKind::Operator("+") => {}
                TokenKind::Number(number) => total = total.saturating_add(sign.saturating_mul(number)),
                _ => return Err(self.unexpected()),
            }
            let ends_operand = matches!(self.token.kind, TokenKind::Number(_));
            self.advance()?;
            if ends_operand {
                if !matches!(self.token.kind, TokenKind::Operator("-" | "+")) {
                    return Ok(total);
                }
                sign = 1;
            }
        }
    }

    fn gate(&mut self, name: &str, depth: usize) -> Result<Argument, PolicyTextError> {
        let position = self.token.position;
        let kind = match name {
            "AND" | "And" => GateKind::And,
            "OR" | "Or" => GateKind::Or,
            "OutOf" | "outof" | "OUTOF" => GateKind::OutOf,
            _ => return Err(self.fail(&format!("unknown name {name}"), position)),
        };
        if depth == 0 {
            return Err(self.fail("gates are nested too deeply", position));
        }
        self.advance()?;
        self.expect_operator("(")?;
        self.gates += 1;
        let number = self.gates;
        let mut arguments = Vec::new();
        while self.token.kind != TokenKind::Operator(")") {
            arguments.push(self.expression(depth - 1)?);
            if self.token.kind == TokenKind::Operator(",") {
                self.advance()?;
            } else if self.token.kind != TokenKind::Operator(")") {
                return Err(self.unexpected());
            }
        }
        self.advance()?;
        Ok(Argument::Gate(Gate { kind, position, number, arguments }))
    }

    fn expect_operator(&mut self, operator: &str) -> Result<(), PolicyTextError> {
        if self.token.kind != TokenKind::Operator(operator) {
            return Err(self.unexpected());
        }
        self.advance().map(|_| ())
    }

    fn unexpected(&self) -> PolicyTextError {
        if self.text.trim().is_empty() {
            return PolicyTextError("unexpected token EOF".to_owned());
        }
        self.fail(&format!("unexpected token {}", self.token.kind), self.token.position)
    }

    fn fail(&self, message: &str, position: usize) -> PolicyTextError {
        located(message, self.text, position)
    }
}
