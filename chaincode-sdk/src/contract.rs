//! Contracts: named functions over a [`Context`].

use crate::chaincode::Description;
use crate::{Context, Error, FromArgument, IntoPayload};

/// What a chaincode is: something that answers invocations.
///
/// Most authors write the attribute [`contract`](macro@crate::contract) over an `impl` block, which implements this; [`Functions`] makes
/// one out of plain functions.
pub trait Contract {
    /// Executes one function and returns the payload of the response.
    ///
    /// # Errors
    /// The refusal that the client shall see.
    fn invoke(&self, context: &Context<'_>, function: &str, arguments: &[Vec<u8>]) -> Result<Vec<u8>, Error>;

    /// The contract's name, if it has one.
    fn name(&self) -> Option<&'static str> {
        None
    }

    /// What the contract says about itself.
    fn describe(&self) -> Option<Description> {
        None
    }
}

/// A function with typed parameters, in the form that [`Functions`] stores.
///
/// Implemented for every `fn(&Context, A, B, ...) -> Result<R, Error>` whose parameters implement [`FromArgument`] and
/// whose result implements [`IntoPayload`].
pub trait Handler<Parameters> {
    /// Reads the arguments, calls the function, writes the result.
    ///
    /// # Errors
    /// A wrong number of arguments, one that cannot be read, or the function's own refusal.
    fn call(&self, context: &Context<'_>, arguments: &[Vec<u8>]) -> Result<Vec<u8>, Error>;
}

macro_rules! handlers {
    ($(($($parameter:ident)*))+) => {$(
        impl<Function, Payload, $($parameter),*> Handler<($($parameter,)*)> for Function
        where
            Function: Fn(&Context<'_>, $($parameter),*) -> Result<Payload, Error>,
            Payload: IntoPayload,
            $($parameter: FromArgument,)*
        {
            #[allow(non_snake_case, unused_mut, unused_variables, unused_assignments, reason = "the type's name serves as the value's")]
            fn call(&self, context: &Context<'_>, arguments: &[Vec<u8>]) -> Result<Vec<u8>, Error> {
                const EXPECTED: usize = <[&str]>::len(&[$(stringify!($parameter)),*]);
                if arguments.len() != EXPECTED {
                    return Err(Error::new(format!(
                        "Expected {EXPECTED} parameters, but {} have been supplied",
                        arguments.len()
                    )));
                }
                let mut position = 0;
                $(
                    let $parameter = $parameter::from_argument(&arguments[position])
                        .map_err(|error| Error::new(format!("parameter {}: {error}", position + 1)))?;
                    position += 1;
                )*
                self(context, $($parameter),*)?.into_payload()
            }
        }
    )+};
}

handlers! {
    () (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) (A B C D E F G H)
}

type Call<'f> = Box<dyn Fn(&Context<'_>, &[Vec<u8>]) -> Result<Vec<u8>, Error> + 'f>;

/// A contract made of named functions.
///
/// ```
/// use consort_chaincode_sdk::{Context, Error, Functions};
///
/// fn greet(context: &Context, name: String) -> Result<String, Error> {
///     context.put("last", name.as_bytes())?;
///     Ok(format!("good day, {name}"))
/// }
///
/// fn contract() -> Functions<'static> {
///     Functions::new().function("Greet", greet)
/// }
/// ```
#[derive(Default)]
pub struct Functions<'f> {
    functions: Vec<(&'f str, Call<'f>)>,
}

impl<'f> Functions<'f> {
    /// A contract that has no function yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a function under the name that clients call.
    #[must_use]
    pub fn function<Parameters>(mut self, name: &'f str, function: impl Handler<Parameters> + 'f) -> Self {
        self.functions.push((name, Box::new(move |context, arguments| function.call(context, arguments))));
        self
    }
}

impl Contract for Functions<'_> {
    fn invoke(&self, context: &Context<'_>, function: &str, arguments: &[Vec<u8>]) -> Result<Vec<u8>, Error> {
        // Clients of several contracts in one chaincode write `<contract>:<function>`; here there is one contract.
        let name = function.rsplit_once(':').map_or(function, |(_, name)| name);
        let Some((_, call)) = self.functions.iter().find(|(known, _)| *known == name) else {
            return Err(Error::new(format!(
                "You've asked to invoke a function that does not exist: {function}"
            )));
        };
        call(context, arguments)
    }
}

impl std::fmt::Debug for Functions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.functions.iter().map(|(name, _)| name)).finish()
    }
}

/// Splits the client's arguments into the function's name and the rest, and calls the contract.
pub(crate) fn dispatch(
    contract: &dyn Contract,
    context: &Context<'_>,
    arguments: &[Vec<u8>],
) -> Result<Vec<u8>, Error> {
    let (name, rest) = arguments.split_first().ok_or_else(|| Error::new("no function name was supplied"))?;
    let name = std::str::from_utf8(name).map_err(|_| Error::new("the function name is not UTF-8 text"))?;
    contract.invoke(context, name, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryLedger;

    fn add(_: &Context<'_>, left: i64, right: i64) -> Result<i64, Error> {
        left.checked_add(right).ok_or_else(|| Error::new("the sum is too large"))
    }

    fn contract() -> Functions<'static> {
        Functions::new().function("Add", add)
    }

    #[test]
    fn parameters_and_results_are_typed() {
        assert_eq!(MemoryLedger::new().evaluate(&contract(), "Add", &["2", "40"]).unwrap(), b"42");
    }

    #[test]
    fn a_contract_name_before_the_function_is_accepted() {
        assert_eq!(MemoryLedger::new().evaluate(&contract(), "Sums:Add", &["2", "40"]).unwrap(), b"42");
    }

    #[test]
    fn a_function_that_does_not_exist_is_named() {
        let error = MemoryLedger::new().evaluate(&contract(), "Subtract", &[]).unwrap_err();
        assert_eq!(error.message(), "You've asked to invoke a function that does not exist: Subtract");
    }

    #[test]
    fn a_wrong_number_of_arguments_is_counted() {
        let error = MemoryLedger::new().evaluate(&contract(), "Add", &["2"]).unwrap_err();
        assert_eq!(error.message(), "Expected 2 parameters, but 1 have been supplied");
    }

    #[test]
    fn an_argument_that_cannot_be_read_is_named_by_position() {
        let error = MemoryLedger::new().evaluate(&contract(), "Add", &["2", "x"]).unwrap_err();
        assert_eq!(error.message(), "parameter 2: expected a whole number of 64 bits, got \"x\"");
    }
}
