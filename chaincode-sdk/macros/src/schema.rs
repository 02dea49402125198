//! JSON schemas of Rust types, as far as their form in the source tells.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{
    Attribute, Data, DeriveInput, Error, Fields, GenericArgument, LitStr, PathArguments, Result, Type,
    TypePath, parse2,
};

/// A text as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    let mut json = String::from('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            control if control < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => json.push(other),
        }
    }
    json.push('"');
    json
}

fn last_word(path: &TypePath) -> String {
    path.path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default()
}

fn generic(path: &TypePath) -> Vec<&Type> {
    match path.path.segments.last().map(|segment| &segment.arguments) {
        Some(PathArguments::AngleBracketed(arguments)) => arguments
            .args
            .iter()
            .filter_map(|argument| match argument {
                GenericArgument::Type(kind) => Some(kind),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Whether a type is `Vec<u8>`, which travels as it is.
pub(crate) fn is_bytes(kind: &Type) -> bool {
    let Type::Path(path) = kind else { return false };
    last_word(path) == "Vec"
        && matches!(generic(path)[..], [Type::Path(element)] if element.path.is_ident("u8"))
}

/// Whether a type is `()`.
pub(crate) fn is_unit(kind: &Type) -> bool {
    matches!(kind, Type::Tuple(tuple) if tuple.elems.is_empty())
}

/// A type as an author would write it, without the paths that these macros put there.
pub(crate) fn words(kind: &Type) -> String {
    let text = quote!(#kind).to_string().replace(' ', "");
    text.replace("::std::vec::", "").replace("::std::string::", "").replace(',', ", ")
}

/// How a type's value looks.
enum Form<'t> {
    /// One of JSON's own kinds, with its schema.
    Plain(&'static str),
    /// A list of something.
    List(&'t Type),
    /// Something or nothing.
    Optional(&'t Type),
    /// A type of the author's, by name.
    Named(String),
}

fn form(kind: &Type) -> Form<'_> {
    let path = match kind {
        Type::Path(path) => path,
        Type::Reference(reference) => return form(&reference.elem),
        Type::Slice(slice) => return Form::List(&slice.elem),
        Type::Array(array) => return Form::List(&array.elem),
        _ => return Form::Plain(r#"{"type":"array"}"#),
    };
    match (last_word(path).as_str(), &generic(path)[..]) {
        ("String" | "str" | "char", _) => Form::Plain(r#"{"type":"string"}"#),
        ("bool", _) => Form::Plain(r#"{"type":"boolean"}"#),
        ("i8" | "i16" | "i32", _) => Form::Plain(r#"{"type":"integer","format":"int32"}"#),
        ("u8" | "u16" | "u32", _) => Form::Plain(r#"{"type":"integer","format":"int64","minimum":0}"#),
        ("i64" | "i128" | "isize", _) => Form::Plain(r#"{"type":"integer","format":"int64"}"#),
        ("u64" | "u128" | "usize", _) => Form::Plain(r#"{"type":"integer","minimum":0}"#),
        ("f32" | "f64", _) => Form::Plain(r#"{"type":"number","format":"double"}"#),
        ("Value", _) => Form::Plain("{}"),
        ("Vec", _) if is_bytes(kind) => Form::Plain(r#"{"type":"string","format":"byte"}"#),
        ("Vec" | "VecDeque" | "BTreeSet" | "HashSet", [element]) => Form::List(element),
        ("Option", [inside]) => Form::Optional(inside),
        ("Box" | "Rc" | "Arc" | "Json", [inside]) => form(inside),
        ("BTreeMap" | "HashMap", _) => Form::Plain(r#"{"type":"object"}"#),
        (name, _) => Form::Named(name.to_owned()),
    }
}

/// The schema of a type, with references to named ones.
pub(crate) fn of(kind: &Type) -> String {
    match form(kind) {
        Form::Plain(schema) => schema.to_owned(),
        Form::List(element) => format!(r#"{{"type":"array","items":{}}}"#, of(element)),
        Form::Optional(inside) => of(inside),
        Form::Named(name) => format!(r##"{{"$ref":"#/components/schemas/{name}"}}"##),
    }
}

/// The named types in a type, with the names under which they are referred to.
fn named<'t>(kind: &'t Type, into: &mut Vec<(String, &'t Type)>) {
    match form(kind) {
        Form::Plain(_) => {}
        Form::List(inside) | Form::Optional(inside) => named(inside, into),
        Form::Named(name) => {
            // Looks through what `form` looked through.
            let mut inner = kind;
            while let Type::Path(path) = inner
                && let ("Box" | "Rc" | "Arc" | "Json", [inside]) =
                    (last_word(path).as_str(), &generic(path)[..])
            {
                inner = inside;
            }
            if let Type::Reference(reference) = inner {
                inner = &reference.elem;
            }
            into.push((name, inner));
        }
    }
}

/// Code that puts the schemas of all named types into `schemas`.
pub(crate) fn collect<'t>(types: impl Iterator<Item = &'t Type>) -> TokenStream {
    let mut found = Vec::new();
    for kind in types {
        named(kind, &mut found);
    }
    found.sort_by(|left, right| left.0.cmp(&right.0));
    found.dedup_by(|left, right| left.0 == right.0);
    let collected = found.into_iter().map(|(name, kind)| {
        let unknown = format!(r#"{{"$id":{},"type":"object"}}"#, quoted(&name));
        quote! {
            if !schemas.contains_key(#name) {
                #[allow(unused_imports, reason = "types that have a schema do not need it")]
                use ::consort_chaincode_sdk::chaincode::WithoutSchema as _;
                ::consort_chaincode_sdk::chaincode::Probe::<#kind>(::std::marker::PhantomData).collect(&mut *schemas);
                schemas.entry(#name).or_insert(#unknown);
            }
        }
    });
    quote! { #(#collected)* }
}

/// What serde's attributes say about names.
#[derive(Default)]
struct Serde {
    rename: Option<String>,
    rename_all: Option<String>,
    skip: bool,
    default: bool,
}

fn serde(attributes: &[Attribute]) -> Result<Serde> {
    let mut found = Serde::default();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("rename") && meta.input.peek(syn::Token![=]) {
                found.rename = Some(meta.value()?.parse::<LitStr>()?.value());
            } else if meta.path.is_ident("rename_all") && meta.input.peek(syn::Token![=]) {
                found.rename_all = Some(meta.value()?.parse::<LitStr>()?.value());
            } else {
                found.skip |= meta.path.is_ident("skip");
                found.default |= meta.path.is_ident("default");
                // The rest is serde's own matter; it is read so that the next one can be found.
                if meta.input.peek(syn::Token![=]) {
                    meta.value()?.parse::<syn::Expr>()?;
                } else if meta.input.peek(syn::token::Paren) {
                    let content;
                    syn::parenthesized!(content in meta.input);
                    content.parse::<TokenStream>()?;
                }
            }
            Ok(())
        })?;
    }
    Ok(found)
}

/// Serde's rule for a name of the source: fields are `snake_case` there, variants `PascalCase`.
fn renamed(name: &str, rule: Option<&str>) -> String {
    let mut words: Vec<String> = Vec::new();
    for part in name.split('_') {
        for character in part.chars() {
            if character.is_uppercase() || words.is_empty() {
                words.push(String::new());
            }
            if let Some(word) = words.last_mut() {
                word.extend(character.to_lowercase());
            }
        }
        words.push(String::new());
    }
    words.retain(|word| !word.is_empty());
    let capital = |word: &String| {
        let mut characters = word.chars();
        characters
            .next()
            .map(|first| first.to_uppercase().chain(characters).collect::<String>())
            .unwrap_or_default()
    };
    match rule {
        Some("lowercase") => words.concat(),
        Some("UPPERCASE") => words.concat().to_uppercase(),
        Some("PascalCase") => words.iter().map(capital).collect(),
        Some("camelCase") => {
            let pascal: String = words.iter().map(capital).collect();
            let mut characters = pascal.chars();
            characters
                .next()
                .map(|first| first.to_lowercase().chain(characters).collect())
                .unwrap_or_default()
        }
        Some("snake_case") => words.join("_"),
        Some("SCREAMING_SNAKE_CASE") => words.join("_").to_uppercase(),
        Some("kebab-case") => words.join("-"),
        Some("SCREAMING-KEBAB-CASE") => words.join("-").to_uppercase(),
        _ => name.to_owned(),
    }
}

/// Expands the derive macro.
pub(crate) fn expand(item: TokenStream) -> Result<TokenStream> {
    let input: DeriveInput = parse2(item)?;
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(&input.generics, "a type with parameters has no schema of its own"));
    }
    let name = input.ident.to_string();
    let outer = serde(&input.attrs)?;
    let rule = outer.rename_all.as_deref();
    let mut types = Vec::new();
    let schema = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => {
                let (mut properties, mut required) = (Vec::new(), Vec::new());
                for field in &fields.named {
                    let options = serde(&field.attrs)?;
                    if options.skip {
                        continue;
                    }
                    let ident = field.ident.as_ref().map(ToString::to_string).unwrap_or_default();
                    let shown = quoted(&options.rename.unwrap_or_else(|| renamed(&ident, rule)));
                    properties.push(format!("{shown}:{}", of(&field.ty)));
                    if !options.default && !matches!(form(&field.ty), Form::Optional(_)) {
                        required.push(shown);
                    }
                    types.push(&field.ty);
                }
                format!(
                    r#"{{"$id":{},"type":"object","properties":{{{}}},"required":[{}],"additionalProperties":false}}"#,
                    quoted(&name),
                    properties.join(","),
                    required.join(",")
                )
            }
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
                types.push(&fields.unnamed[0].ty);
                of(&fields.unnamed[0].ty)
            }
            _ => format!(r#"{{"$id":{}}}"#, quoted(&name)),
        },
        Data::Enum(data) if data.variants.iter().all(|variant| matches!(variant.fields, Fields::Unit)) => {
            let mut names = Vec::new();
            for variant in &data.variants {
                let options = serde(&variant.attrs)?;
                names.push(quoted(
                    &options.rename.unwrap_or_else(|| renamed(&variant.ident.to_string(), rule)),
                ));
            }
            format!(r#"{{"$id":{},"type":"string","enum":[{}]}}"#, quoted(&name), names.join(","))
        }
        _ => format!(r#"{{"$id":{}}}"#, quoted(&name)),
    };
    let ident = &input.ident;
    let collect = collect(types.into_iter());
    Ok(quote! {
        #[automatically_derived]
        impl ::consort_chaincode_sdk::Schema for #ident {
            fn collect(schemas: &mut ::consort_chaincode_sdk::Schemas) {
                if schemas.insert(#name, #schema).is_none() {
                    #collect
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_serdes_rules() {
        for (rule, field, variant) in [
            ("PascalCase", "AppraisedValue", "RedWine"),
            ("camelCase", "appraisedValue", "redWine"),
            ("snake_case", "appraised_value", "red_wine"),
            ("SCREAMING_SNAKE_CASE", "APPRAISED_VALUE", "RED_WINE"),
            ("kebab-case", "appraised-value", "red-wine"),
        ] {
            assert_eq!(renamed("appraised_value", Some(rule)), field);
            assert_eq!(renamed("RedWine", Some(rule)), variant);
        }
        assert_eq!(renamed("doc_type", None), "doc_type");
    }

    #[test]
    fn types_have_the_schema_of_their_json() {
        let of_text = |text: &str| of(&syn::parse_str::<Type>(text).unwrap());
        assert_eq!(
            of_text("Option<Vec<u32>>"),
            r#"{"type":"array","items":{"type":"integer","format":"int64","minimum":0}}"#
        );
        assert_eq!(of_text("crate::Asset"), r##"{"$ref":"#/components/schemas/Asset"}"##);
        assert_eq!(of_text("Vec<u8>"), r#"{"type":"string","format":"byte"}"#);
        assert_eq!(quoted("a\"\\\n"), r#""a\"\\\u000a""#);
    }
}
