//! The attribute and the derive macro of `consort-chaincode-sdk`, which exports them. Authors use them from there.
//!
//! Owns the reading of `impl` blocks and types, and the code and the metadata that is made of them. Does not own what the code does: it
//! calls functions of the SDK.
//!
//! Data flows from the tokens of one item to tokens that follow it.
//!
//! Always: the item itself is left as it was written, but for the markers that only these macros understand.

mod contract;
mod schema;

use proc_macro::TokenStream;

/// Makes a contract of an `impl` block.
///
/// ```ignore
/// #[contract]                                   // or #[contract(name = "Assets")]; the type's name otherwise
/// impl Assets {
///     #[submit]                                 // called "CreateAsset"; #[submit(name = "create")] says otherwise
///     fn create_asset(&self, context: &Context<'_>, id: &str, size: u32) -> Result<(), Error> { ... }
///
///     #[evaluate]                               // must not write
///     fn read_asset(&self, context: &Context<'_>, id: &str) -> Result<Asset, Error> { ... }
///
///     #[before]                                 // runs before every function, and may refuse
///     fn check(&self, context: &Context<'_>, call: &Call<'_>) -> Result<(), Error> { ... }
///
///     #[after]                                  // runs after every function that did not refuse
///     fn note(&self, context: &Context<'_>, call: &Call<'_>, payload: &[u8]) -> Result<(), Error> { ... }
/// }
/// ```
///
/// A function's first parameter, after `&self` if it has that, is the context. The others are serde types, or references to them (`&str`,
/// `&Asset`, `&[String]`); bytes are `Vec<u8>` or `&[u8]`. Results are `Result<T, Error>`, or plain values, of serde types or bytes.
/// Functions without a marker are not callable from outside.
#[proc_macro_attribute]
pub fn contract(attribute: TokenStream, item: TokenStream) -> TokenStream {
    contract::expand(attribute.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Describes a type's JSON form in the chaincode's metadata. Understands serde's `rename`, `rename_all` and `skip`.
#[proc_macro_derive(Schema, attributes(serde))]
pub fn schema(item: TokenStream) -> TokenStream {
    schema::expand(item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
