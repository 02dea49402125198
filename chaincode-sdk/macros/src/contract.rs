//! The attribute `contract`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, FnArg, GenericArgument, ImplItem, ImplItemFn, ItemImpl, LitStr, Pat, PathArguments,
    Result, ReturnType, Type, parse2,
};

use crate::schema::{self, quoted};

/// What a function is marked as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Submit,
    Evaluate,
    Before,
    After,
}

impl Mark {
    fn of(attribute: &Attribute) -> Option<Self> {
        let path = attribute.path();
        let marks = [
            ("submit", Self::Submit),
            ("evaluate", Self::Evaluate),
            ("before", Self::Before),
            ("after", Self::After),
        ];
        marks.into_iter().find(|(name, _)| path.is_ident(name)).map(|(_, mark)| mark)
    }
}

/// One function that clients call.
struct Function {
    name: String,
    mark: Mark,
    method: ImplItemFn,
    parameters: Vec<Parameter>,
    returns: Returns,
}

/// One parameter behind the context.
struct Parameter {
    name: String,
    /// The type that is read.
    owned: Type,
    /// Whether the function takes a reference to it.
    by_reference: bool,
    written: String,
}

struct Returns {
    /// The type inside of `Result`, or the type itself.
    value: Option<Type>,
    fallible: bool,
}

/// Expands the attribute over an `impl` block.
pub(crate) fn expand(attribute: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let mut block: ItemImpl = parse2(item)?;
    let mut name = type_name(&block.self_ty)?;
    let parser = syn::meta::parser(|meta| {
        if meta.path.is_ident("name") {
            name = meta.value()?.parse::<LitStr>()?.value();
            return Ok(());
        }
        Err(meta.error("the attribute understands name = \"...\" only"))
    });
    syn::parse::Parser::parse2(parser, attribute)?;
    if name.contains(':') {
        return Err(Error::new(block.self_ty.span(), "a contract's name must not contain ':'"));
    }
    let mut functions = Vec::new();
    let (mut before, mut after) = (None, None);
    for item in &mut block.items {
        let ImplItem::Fn(method) = item else { continue };
        let Some(position) = method.attrs.iter().position(|attribute| Mark::of(attribute).is_some()) else {
            continue;
        };
        let attribute = method.attrs.remove(position);
        let mark = Mark::of(&attribute).expect("invariant: found by this very question");
        let hook = match mark {
            Mark::Before => &mut before,
            Mark::After => &mut after,
            Mark::Submit | Mark::Evaluate => {
                functions.push(function(&attribute, mark, method)?);
                continue;
            }
        };
        if hook.replace(method.clone()).is_some() {
            return Err(Error::new(method.sig.span(), "a contract has one hook of each kind"));
        }
    }
    if functions.is_empty() {
        return Err(Error::new(block.self_ty.span(), "no function is marked #[submit] or #[evaluate]"));
    }
    if let Some(twice) = functions.iter().enumerate().find_map(|(index, function)| {
        functions[..index].iter().any(|other| other.name == function.name).then_some(function)
    }) {
        let text = format!("two functions are called {}", twice.name);
        return Err(Error::new(twice.method.sig.ident.span(), text));
    }
    let implementation = implementation(&block, &name, &functions, before.as_ref(), after.as_ref());
    Ok(quote! { #block #implementation })
}

fn type_name(kind: &Type) -> Result<String> {
    match kind {
        Type::Path(path) => {
            let last = path.path.segments.last().expect("invariant: a path has a segment");
            Ok(last.ident.to_string())
        }
        other => Err(Error::new(other.span(), "a contract is a type with a name")),
    }
}

fn function(attribute: &Attribute, mark: Mark, method: &ImplItemFn) -> Result<Function> {
    let mut name = pascal_case(&method.sig.ident.to_string());
    if !matches!(attribute.meta, syn::Meta::Path(_)) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                name = meta.value()?.parse::<LitStr>()?.value();
                return Ok(());
            }
            Err(meta.error("the marker understands name = \"...\" only"))
        })?;
    }
    let mut inputs = method.sig.inputs.iter().filter(|input| matches!(input, FnArg::Typed(_)));
    let context = inputs.next();
    if !matches!(context, Some(FnArg::Typed(typed)) if matches!(*typed.ty, Type::Reference(_))) {
        let text = "the first parameter of a contract's function is the context: `context: &Context<'_>`";
        return Err(Error::new(method.sig.span(), text));
    }
    let parameters = inputs.map(parameter).collect::<Result<_>>()?;
    let returns = returns(&method.sig.output);
    Ok(Function { name, mark, method: method.clone(), parameters, returns })
}

fn parameter(input: &FnArg) -> Result<Parameter> {
    let FnArg::Typed(typed) = input else {
        return Err(Error::new(input.span(), "`self` comes first"));
    };
    let name = match &*typed.pat {
        Pat::Ident(ident) => ident.ident.to_string().trim_start_matches('_').to_owned(),
        other => {
            return Err(Error::new(other.span(), "a parameter of a contract's function has a plain name"));
        }
    };
    let (owned, by_reference) = match &*typed.ty {
        Type::Reference(reference) if reference.mutability.is_some() => {
            return Err(Error::new(reference.span(), "an argument cannot be changed for the client"));
        }
        Type::Reference(reference) => (owned(&reference.elem), true),
        other => (other.clone(), false),
    };
    let written = schema::words(&owned);
    Ok(Parameter { name, owned, by_reference, written })
}

/// The type that a reference can be taken of.
fn owned(kind: &Type) -> Type {
    match kind {
        Type::Slice(slice) => {
            let element = &slice.elem;
            syn::parse_quote!(::std::vec::Vec<#element>)
        }
        Type::Path(path) if path.path.is_ident("str") => syn::parse_quote!(::std::string::String),
        other => other.clone(),
    }
}

fn returns(output: &ReturnType) -> Returns {
    let ReturnType::Type(_, kind) = output else { return Returns { value: None, fallible: false } };
    let Type::Path(path) = &**kind else {
        return Returns { value: Some((**kind).clone()), fallible: false };
    };
    let last = path.path.segments.last().expect("invariant: a path has a segment");
    let first = match &last.arguments {
        PathArguments::AngleBracketed(arguments) if last.ident == "Result" => {
            arguments.args.iter().find_map(|argument| match argument {
                GenericArgument::Type(kind) => Some(kind.clone()),
                _ => None,
            })
        }
        _ => return Returns { value: Some((**kind).clone()), fallible: false },
    };
    Returns { value: first, fallible: true }
}

fn pascal_case(name: &str) -> String {
    name.split('_')
        .map(|word| {
            let mut characters = word.chars();
            characters.next().map(|first| first.to_uppercase().chain(characters).collect::<String>())
        })
        .map(Option::unwrap_or_default)
        .collect()
}

impl Function {
    /// As an author would write it down: `CreateAsset(id: String, size: u32)`.
    fn signature(&self) -> String {
        let parameters: Vec<String> = self
            .parameters
            .iter()
            .map(|parameter| format!("{}: {}", parameter.name, parameter.written))
            .collect();
        format!("{}({})", self.name, parameters.join(", "))
    }

    /// The arm of the function's name.
    fn arm(&self, block: &ItemImpl) -> TokenStream {
        let (name, signature) = (&self.name, self.signature());
        let expected = self.parameters.len();
        let locals: Vec<_> = (0..expected).map(|index| format_ident!("argument_{index}")).collect();
        let reads = self.parameters.iter().zip(&locals).enumerate().map(|(index, (parameter, local))| {
            let (kind, name, position) = (&parameter.owned, &parameter.name, index + 1);
            if schema::is_bytes(kind) {
                return quote! { let #local: #kind = arguments[#index].clone(); };
            }
            quote! {
                let #local: #kind = ::consort_chaincode_sdk::parameter::read(&arguments[#index]).map_err(|error| {
                    ::consort_chaincode_sdk::chaincode::wrong_argument(#signature, #position, #name, &error)
                })?;
            }
        });
        let passed = self.parameters.iter().zip(&locals).map(|(parameter, local)| {
            if parameter.by_reference {
                quote! { &#local }
            } else {
                quote! { #local }
            }
        });
        let (method, own) = (&self.method.sig.ident, &block.self_ty);
        let called = if self.method.sig.receiver().is_some() {
            quote! { self.#method(context, #(#passed),*) }
        } else {
            quote! { <#own>::#method(context, #(#passed),*) }
        };
        let called = if self.returns.fallible {
            quote! { #called? }
        } else {
            called
        };
        let payload = match &self.returns.value {
            Some(kind) if schema::is_bytes(kind) => quote! { #called },
            Some(kind) if schema::is_unit(kind) => quote! {{ #called; ::std::vec::Vec::new() }},
            None => quote! {{ #called; ::std::vec::Vec::new() }},
            Some(_) => quote! { ::consort_chaincode_sdk::parameter::write(&#called)? },
        };
        let context = match self.mark {
            Mark::Evaluate => quote! { let context = &context.read_only(#name); },
            _ => TokenStream::new(),
        };
        quote! {
            #name => {
                if arguments.len() != #expected {
                    return ::std::result::Result::Err(
                        ::consort_chaincode_sdk::chaincode::wrong_count(#signature, #expected, arguments.len())
                    );
                }
                #(#reads)*
                #context
                #payload
            }
        }
    }

    /// The entry in the metadata.
    fn described(&self) -> String {
        let tag = match self.mark {
            Mark::Evaluate => r#"["evaluate","EVALUATE"]"#,
            _ => r#"["submit","SUBMIT"]"#,
        };
        let parameters: Vec<String> = self
            .parameters
            .iter()
            .map(|parameter| {
                format!(r#"{{"name":{},"schema":{}}}"#, quoted(&parameter.name), schema::of(&parameter.owned))
            })
            .collect();
        let returns = match &self.returns.value {
            Some(kind) if !schema::is_unit(kind) => format!(r#","returns":{}"#, schema::of(kind)),
            _ => String::new(),
        };
        format!(
            r#"{{"name":{},"tag":{tag},"parameters":[{}]{returns}}}"#,
            quoted(&self.name),
            parameters.join(",")
        )
    }
}

fn implementation(
    block: &ItemImpl,
    name: &str,
    functions: &[Function],
    before: Option<&ImplItemFn>,
    after: Option<&ImplItemFn>,
) -> TokenStream {
    let own = &block.self_ty;
    let names: Vec<&String> = functions.iter().map(|function| &function.name).collect();
    let arms = functions.iter().map(|function| function.arm(block));
    let kinds = functions.iter().map(|function| {
        let name = &function.name;
        match function.mark {
            Mark::Evaluate => quote! { #name => ::consort_chaincode_sdk::Kind::Evaluate },
            _ => quote! { #name => ::consort_chaincode_sdk::Kind::Submit },
        }
    });
    let hook = |method: &ImplItemFn, arguments: TokenStream| {
        let ident = &method.sig.ident;
        if method.sig.receiver().is_some() {
            quote! { self.#ident(#arguments)?; }
        } else {
            quote! { <#own>::#ident(#arguments)?; }
        }
    };
    let before = before.map(|method| hook(method, quote! { context, &call }));
    let after = after.map(|method| hook(method, quote! { context, &call, &payload }));
    let transactions = functions.iter().map(Function::described).collect::<Vec<_>>().join(",");
    let transactions = format!("[{transactions}]");
    let used = functions.iter().flat_map(|function| {
        function.parameters.iter().map(|parameter| &parameter.owned).chain(&function.returns.value)
    });
    let collect = schema::collect(used);
    quote! {
        #[automatically_derived]
        impl ::consort_chaincode_sdk::Contract for #own {
            fn invoke(
                &self,
                context: &::consort_chaincode_sdk::Context<'_>,
                function: &str,
                arguments: &[::std::vec::Vec<u8>],
            ) -> ::std::result::Result<::std::vec::Vec<u8>, ::consort_chaincode_sdk::Error> {
                let name = match function.rsplit_once(':') {
                    Some((contract, name)) if contract.is_empty() || contract == #name => name,
                    _ => function,
                };
                let kind = match name {
                    #(#kinds,)*
                    _ => return Err(::consort_chaincode_sdk::chaincode::unknown_function(function, &[#(#names),*])),
                };
                let call = ::consort_chaincode_sdk::Call { function: name, kind, arguments };
                #before
                let payload: ::std::vec::Vec<u8> = match call.function {
                    #(#arms)*
                    _ => return Err(::consort_chaincode_sdk::chaincode::unknown_function(function, &[#(#names),*])),
                };
                #after
                Ok(payload)
            }

            fn name(&self) -> ::std::option::Option<&'static str> {
                Some(#name)
            }

            fn describe(&self) -> ::std::option::Option<::consort_chaincode_sdk::Description> {
                let mut all = ::consort_chaincode_sdk::Schemas::new();
                let schemas = &mut all;
                #collect
                Some(::consort_chaincode_sdk::Description { name: #name, transactions: #transactions, schemas: all })
            }
        }
    }
}
