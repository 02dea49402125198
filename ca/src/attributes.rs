//! Attributes of identities and who may give which: pure rules.
//!
//! Source: fabric-ca `lib/attr/attribute.go` and its users' guide, "Registering a new identity".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::request::null_as_default;

/// The types of identities that the holder may register and act upon.
pub const REGISTRAR_ROLES: &str = "hf.Registrar.Roles";
/// The roles that the holder may pass on.
pub const REGISTRAR_DELEGATE_ROLES: &str = "hf.Registrar.DelegateRoles";
/// The attribute names (or prefixes ending in `*`) that the holder may give.
pub const REGISTRAR_ATTRIBUTES: &str = "hf.Registrar.Attributes";
/// Whether the holder may revoke.
pub const REVOKER: &str = "hf.Revoker";
/// Whether the holder may enrol an intermediate certificate authority.
pub const INTERMEDIATE_CA: &str = "hf.IntermediateCA";
/// Whether the holder may ask for the list of revoked certificates.
pub const GEN_CRL: &str = "hf.GenCRL";
/// Whether the holder may manage affiliations.
pub const AFFILIATION_MANAGER: &str = "hf.AffiliationMgr";
/// The identity's name; set by the certificate authority alone.
pub const ENROLLMENT_ID: &str = "hf.EnrollmentID";
/// The identity's type; set by the certificate authority alone.
pub const TYPE: &str = "hf.Type";
/// The identity's affiliation; set by the certificate authority alone.
pub const AFFILIATION: &str = "hf.Affiliation";

/// Most attributes of one identity; all of them may end up in one certificate.
pub const ATTRIBUTES_MAX: usize = 100;
/// Longest attribute name in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// Longest attribute value in bytes.
pub const VALUE_BYTES_MAX: usize = 4096;

/// One attribute as the REST API carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// The name, matched exactly.
    pub name: String,
    /// The value; a text whatever it means.
    #[serde(default, deserialize_with = "null_as_default")]
    pub value: String,
    /// Whether certificates carry it when the enrolment does not say which attributes it wants.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "std::ops::Not::not")]
    pub ecert: bool,
}

impl Attribute {
    /// An attribute that certificates do not carry by default.
    pub fn new(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), value: value.to_owned(), ecert: false }
    }
}

/// The attributes of one identity, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes(BTreeMap<String, Attribute>);

/// Why an attribute may not be given.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("attribute '{name}': {rule}")]
pub struct AttributeRefused {
    /// The attribute.
    pub name: String,
    /// The rule that it breaks, in words.
    pub rule: String,
}

/// What kind of value a name stands for.
enum Kind {
    /// Only the certificate authority sets it.
    Fixed,
    /// `true` or `false`; given only by one who has it.
    Boolean,
    /// A list of roles; given only within the giver's own.
    Roles,
    /// A list of attribute names and prefixes; given only within the giver's own.
    Patterns,
    /// Starts with `hf.` and means nothing.
    Unknown,
    /// A user's own attribute.
    Custom,
}

fn kind(name: &str) -> Kind {
    match name {
        ENROLLMENT_ID | TYPE | AFFILIATION => Kind::Fixed,
        REVOKER | INTERMEDIATE_CA | GEN_CRL | AFFILIATION_MANAGER => Kind::Boolean,
        REGISTRAR_ROLES | REGISTRAR_DELEGATE_ROLES => Kind::Roles,
        REGISTRAR_ATTRIBUTES => Kind::Patterns,
        _ if name.starts_with("hf.") => Kind::Unknown,
        _ => Kind::Custom,
    }
}

impl Attributes {
    /// The attributes of the first administrator: everything that Fabric CA's default configuration gives.
    pub fn administrator() -> Self {
        let everything = [
            (REGISTRAR_ROLES, "*"),
            (REGISTRAR_DELEGATE_ROLES, "*"),
            (REVOKER, "true"),
            (INTERMEDIATE_CA, "true"),
            (GEN_CRL, "true"),
            (REGISTRAR_ATTRIBUTES, "*"),
            (AFFILIATION_MANAGER, "true"),
        ];
        everything.iter().map(|(name, value)| Attribute::new(name, value)).collect()
    }

    /// The attribute of that name.
    pub fn named(&self, name: &str) -> Option<&Attribute> {
        self.0.get(name)
    }

    /// All attributes, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = &Attribute> {
        self.0.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the boolean attribute is there and true.
    pub fn is_true(&self, name: &str) -> bool {
        self.named(name).and_then(|attribute| boolean(&attribute.value)).unwrap_or(false)
    }

    /// Whether the holder may act on identities of this type.
    pub fn may_act_on_type(&self, kind: &str) -> bool {
        self.named(REGISTRAR_ROLES).is_some_and(|roles| {
            list(&roles.value).any(|role| role == "*" || role.eq_ignore_ascii_case(kind))
        })
    }

    /// Whether the holder registers identities at all.
    pub fn is_registrar(&self) -> bool {
        self.named(REGISTRAR_ROLES).is_some_and(|roles| list(&roles.value).next().is_some())
    }

    /// These attributes after `changes`: a change with an empty value removes.
    pub fn changed(&self, changes: &[Attribute]) -> Self {
        let mut changed = self.clone();
        for change in changes {
            if change.value.is_empty() {
                changed.0.remove(&change.name);
            } else {
                changed.0.insert(change.name.clone(), change.clone());
            }
        }
        changed
    }

    /// These attributes with the three that the certificate authority sets itself.
    pub fn with_fixed(mut self, id: &str, kind: &str, affiliation: &str) -> Self {
        for (name, value) in [(ENROLLMENT_ID, id), (TYPE, kind), (AFFILIATION, affiliation)] {
            let attribute = Attribute { name: name.to_owned(), value: value.to_owned(), ecert: true };
            self.0.insert(name.to_owned(), attribute);
        }
        self
    }

    /// Judges whether the holder of these attributes may give `requested` to an identity that then has `resulting`.
    ///
    /// # Errors
    /// The first attribute that breaks a rule, and which.
    pub fn may_give(&self, requested: &[Attribute], resulting: &Self) -> Result<(), AttributeRefused> {
        if requested.len() > ATTRIBUTES_MAX || resulting.len() > ATTRIBUTES_MAX {
            return Err(refused("", "an identity has at most 100 attributes"));
        }
        for attribute in requested {
            check_size(attribute)?;
            self.may_give_name(&attribute.name)?;
            // Taking an attribute away gives nothing that could be too much.
            if !attribute.value.is_empty() {
                self.may_give_value(attribute, resulting)?;
            }
        }
        Ok(())
    }

    fn may_give_name(&self, name: &str) -> Result<(), AttributeRefused> {
        let patterns = self.named(REGISTRAR_ATTRIBUTES).map_or("", |attribute| &attribute.value);
        if list(patterns).any(|pattern| covers(pattern, name)) {
            return Ok(());
        }
        Err(refused(name, "it is not covered by the caller's hf.Registrar.Attributes"))
    }

    fn may_give_value(&self, attribute: &Attribute, resulting: &Self) -> Result<(), AttributeRefused> {
        let refuse = |rule: &str| Err(refused(&attribute.name, rule));
        match kind(&attribute.name) {
            Kind::Custom => Ok(()),
            Kind::Fixed => refuse("only the certificate authority sets it"),
            Kind::Unknown => refuse("names that start with 'hf.' are reserved"),
            Kind::Boolean => match boolean(&attribute.value) {
                None => refuse("its value must be true or false"),
                Some(_) if !self.is_true(&attribute.name) => refuse("the caller does not have it"),
                Some(_) => Ok(()),
            },
            Kind::Roles => self.may_give_roles(attribute, resulting),
            Kind::Patterns => self.may_give_patterns(attribute, resulting),
        }
    }

    fn may_give_roles(&self, attribute: &Attribute, resulting: &Self) -> Result<(), AttributeRefused> {
        let own = self.named(&attribute.name).map_or("", |attribute| &attribute.value);
        if !roles_within(&attribute.value, own) {
            return Err(refused(&attribute.name, "it is not within the caller's own"));
        }
        if attribute.name == REGISTRAR_DELEGATE_ROLES {
            let roles = resulting.named(REGISTRAR_ROLES).map_or("", |attribute| &attribute.value);
            if !roles_within(&attribute.value, roles) {
                return Err(refused(&attribute.name, "it is not within the identity's hf.Registrar.Roles"));
            }
        }
        Ok(())
    }

    fn may_give_patterns(&self, attribute: &Attribute, resulting: &Self) -> Result<(), AttributeRefused> {
        let own = self.named(REGISTRAR_ATTRIBUTES).map_or("", |attribute| &attribute.value);
        for wanted in list(&attribute.value) {
            if !list(own).any(|pattern| covers(pattern, wanted)) {
                return Err(refused(&attribute.name, "it is not within the caller's own"));
            }
            let reserved = wanted.starts_with("hf.") && !wanted.ends_with('*');
            if reserved && resulting.named(wanted).is_none() {
                return Err(refused(
                    &attribute.name,
                    "it names a reserved attribute that the identity lacks",
                ));
            }
        }
        Ok(())
    }
}

impl FromIterator<Attribute> for Attributes {
    fn from_iter<I: IntoIterator<Item = Attribute>>(attributes: I) -> Self {
        Self(attributes.into_iter().map(|attribute| (attribute.name.clone(), attribute)).collect())
    }
}

fn refused(name: &str, rule: &str) -> AttributeRefused {
    AttributeRefused { name: name.chars().take(NAME_BYTES_MAX).collect(), rule: rule.to_owned() }
}

fn check_size(attribute: &Attribute) -> Result<(), AttributeRefused> {
    if attribute.name.is_empty() || attribute.name.len() > NAME_BYTES_MAX {
        return Err(refused(&attribute.name, "a name has 1 to 256 bytes"));
    }
    if attribute.value.len() > VALUE_BYTES_MAX {
        return Err(refused(&attribute.name, "a value has at most 4096 bytes"));
    }
    if attribute.name.chars().chain(attribute.value.chars()).any(char::is_control) {
        return Err(refused(&attribute.name, "control characters are not allowed"));
    }
    Ok(())
}

/// The entries of a comma-separated list, without the spaces around them.
fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

/// A boolean as Go's `strconv.ParseBool` reads it.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Whether every role of `wanted` is in `own`; `*` covers all.
fn roles_within(wanted: &str, own: &str) -> bool {
    list(wanted).all(|role| list(own).any(|held| held == "*" || held.eq_ignore_ascii_case(role)))
}

/// Whether a name, or a pattern ending in `*`, lies within a pattern.
fn covers(pattern: &str, wanted: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => wanted.starts_with(prefix),
        None => pattern == wanted,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;

    fn registrar(attributes: &[(&str, &str)]) -> Attributes {
        attributes.iter().map(|(name, value)| Attribute::new(name, value)).collect()
    }

    fn gives(giver: &Attributes, requested: &[(&str, &str)]) -> bool {
        let requested: Vec<_> = requested.iter().map(|(name, value)| Attribute::new(name, value)).collect();
        let resulting = requested.iter().cloned().collect();
        giver.may_give(&requested, &resulting).is_ok()
    }

    #[test]
    fn an_administrator_gives_everything_but_the_fixed_and_the_reserved() {
        let admin = Attributes::administrator();

        assert!(gives(&admin, &[("email", "a@b"), (REVOKER, "true"), (REGISTRAR_ROLES, "peer,client")]));
        assert!(gives(&admin, &[(REGISTRAR_ATTRIBUTES, "*")]));
        assert!(!gives(&admin, &[(TYPE, "admin")]));
        assert!(!gives(&admin, &[("hf.Superuser", "true")]));
        assert!(!gives(&admin, &[(REVOKER, "yes")]));
    }

    #[test]
    fn nobody_gives_more_than_he_has() {
        let limited = registrar(&[
            (REGISTRAR_ROLES, "client, Peer"),
            (REGISTRAR_ATTRIBUTES, "app.*,hf.Registrar.*,hf.Revoker"),
        ]);

        assert!(gives(&limited, &[("app.role", "x"), (REGISTRAR_ROLES, "PEER")]));
        assert!(gives(&limited, &[(REGISTRAR_ATTRIBUTES, "app.sub.*,app.x")]));
        assert!(!gives(&limited, &[("other", "x")]));
        assert!(!gives(&limited, &[(REGISTRAR_ROLES, "orderer")]));
        assert!(!gives(&limited, &[(REGISTRAR_ROLES, "*")]));
        assert!(!gives(&limited, &[(REVOKER, "true")]));
        assert!(!gives(&limited, &[(REGISTRAR_ATTRIBUTES, "*")]));
        assert!(!gives(&limited, &[(REGISTRAR_ATTRIBUTES, "hf.Revoker")]));
    }

    #[test]
    fn delegate_roles_stay_within_roles() {
        let admin = Attributes::administrator();

        assert!(gives(&admin, &[(REGISTRAR_ROLES, "peer,client"), (REGISTRAR_DELEGATE_ROLES, "peer")]));
        assert!(!gives(&admin, &[(REGISTRAR_ROLES, "peer"), (REGISTRAR_DELEGATE_ROLES, "client")]));
    }

    #[test]
    fn an_empty_value_removes() {
        let attributes = registrar(&[("a", "1"), ("b", "2")]);

        let changed = attributes.changed(&[Attribute::new("a", ""), Attribute::new("b", "3")]);

        assert_eq!(changed, registrar(&[("b", "3")]));
    }

    proptest! {
        #[test]
        fn rules_never_panic_and_never_let_a_role_grow(
            own in "[a-c*]{0,2}(,[a-c*]{1}){0,3}", names in vec(any::<String>(), 0..4), wanted in any::<String>(),
        ) {
            let giver = registrar(&[(REGISTRAR_ROLES, &own), (REGISTRAR_ATTRIBUTES, &names.join(","))]);
            let request = [Attribute::new(REGISTRAR_ROLES, &wanted)];
            let resulting: Attributes = request.iter().cloned().collect();
            if giver.may_give(&request, &resulting).is_ok() {
                for role in list(&wanted) {
                    prop_assert!(giver.may_act_on_type(role));
                }
            }
            let _ = giver.may_give(&[Attribute::new(&wanted, &own)], &resulting);
        }
    }
}
