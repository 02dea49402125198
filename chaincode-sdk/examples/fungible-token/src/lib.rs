//! A fungible token with the functions of ERC-20 (EIP-20), as Fabric's public sample `token-erc-20` offers them.
//!
//! An account is the id of a client's certificate. Each balance and each allowance is a key of its own, so that only transactions that
//! touch the same account wait for each other. One organisation, chosen at initialisation, issues and destroys tokens.

use consort_chaincode_sdk::{Context, Error, Schema, composite_key, contract};
use serde::{Deserialize, Serialize};

/// Key of the token's settings.
const SETTINGS: &str = "settings";
/// Key of the number of tokens.
const TOTAL_SUPPLY: &str = "totalSupply";

/// What was set at initialisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct Settings {
    /// The token's name.
    pub name: String,
    /// Its sign.
    pub symbol: String,
    /// How many decimal places people see.
    pub decimals: u8,
    /// The organisation that issues and destroys tokens.
    pub issuer: String,
}

/// The event of every movement: issuing comes from, and destroying goes to, the account "0x0".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct Transfer {
    /// The account that pays.
    pub from: String,
    /// The account that receives.
    pub to: String,
    /// How much.
    pub value: u64,
}

/// The event of an approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct Approval {
    /// Whose tokens.
    pub owner: String,
    /// Who may spend them.
    pub spender: String,
    /// How many.
    pub value: u64,
}

/// The account that tokens come from when they are issued and go to when they are destroyed.
const NOBODY: &str = "0x0";

/// The contract.
#[derive(Debug, Default)]
pub struct Token;

#[contract(name = "TokenERC20")]
impl Token {
    /// Names the token. The caller's organisation becomes the issuer. Once only.
    #[submit]
    fn initialize(
        &self,
        context: &Context<'_>,
        name: String,
        symbol: String,
        decimals: u8,
    ) -> Result<bool, Error> {
        if context.exists(SETTINGS)? {
            return Err(Error::with_status(409, "the token is initialized already"));
        }
        let issuer = context.client()?.msp_id;
        context.put_json(SETTINGS, &Settings { name, symbol, decimals, issuer })?;
        Ok(true)
    }

    #[evaluate(name = "TokenName")]
    fn name(&self, context: &Context<'_>) -> Result<String, Error> {
        Ok(settings(context)?.name)
    }

    #[evaluate]
    fn symbol(&self, context: &Context<'_>) -> Result<String, Error> {
        Ok(settings(context)?.symbol)
    }

    #[evaluate]
    fn decimals(&self, context: &Context<'_>) -> Result<u8, Error> {
        Ok(settings(context)?.decimals)
    }

    #[evaluate]
    fn total_supply(&self, context: &Context<'_>) -> Result<u64, Error> {
        Ok(context.get_json(TOTAL_SUPPLY)?.unwrap_or(0))
    }

    #[evaluate]
    fn balance_of(&self, context: &Context<'_>, account: &str) -> Result<u64, Error> {
        balance(context, account)
    }

    /// The caller's balance.
    #[evaluate]
    fn client_account_balance(&self, context: &Context<'_>) -> Result<u64, Error> {
        balance(context, &context.client()?.id)
    }

    /// The caller's account, to be told to those who pay.
    #[evaluate(name = "ClientAccountID")]
    fn client_account_id(&self, context: &Context<'_>) -> Result<String, Error> {
        Ok(context.client()?.id)
    }

    #[submit]
    fn transfer(&self, context: &Context<'_>, to: &str, value: u64) -> Result<bool, Error> {
        let from = context.client()?.id;
        pay(context, &from, to, value)
    }

    #[submit]
    fn transfer_from(&self, context: &Context<'_>, from: &str, to: &str, value: u64) -> Result<bool, Error> {
        let spender = context.client()?.id;
        let key = allowance_key(from, &spender)?;
        let allowed = context.get_json::<u64>(&key)?.unwrap_or(0);
        let left = allowed.checked_sub(value).ok_or_else(|| {
            Error::with_status(
                403,
                format!("{spender} may spend {allowed} tokens of {from}, and wants to spend {value}"),
            )
        })?;
        put_number(context, &key, left)?;
        pay(context, from, to, value)
    }

    /// Lets somebody spend tokens of the caller; replaces an earlier approval.
    #[submit]
    fn approve(&self, context: &Context<'_>, spender: String, value: u64) -> Result<bool, Error> {
        let owner = context.client()?.id;
        put_number(context, &allowance_key(&owner, &spender)?, value)?;
        context.emit_json("Approval", &Approval { owner, spender, value })?;
        Ok(true)
    }

    #[evaluate]
    fn allowance(&self, context: &Context<'_>, owner: &str, spender: &str) -> Result<u64, Error> {
        Ok(context.get_json(&allowance_key(owner, spender)?)?.unwrap_or(0))
    }

    /// Issues tokens to the caller, who must belong to the issuer.
    #[submit]
    fn mint(&self, context: &Context<'_>, value: u64) -> Result<bool, Error> {
        let account = issuer(context)?;
        positive(value)?;
        let supply = self.total_supply(context)?.checked_add(value);
        let supply = supply.ok_or_else(|| Error::new("there would be more tokens than can be counted"))?;
        let balance = balance(context, &account)? + value;
        context.put_json(TOTAL_SUPPLY, &supply)?;
        put_number(context, &balance_key(&account)?, balance)?;
        context.emit_json("Transfer", &Transfer { from: NOBODY.to_owned(), to: account, value })?;
        Ok(true)
    }

    /// Destroys tokens of the caller, who must belong to the issuer.
    #[submit]
    fn burn(&self, context: &Context<'_>, value: u64) -> Result<bool, Error> {
        let account = issuer(context)?;
        positive(value)?;
        let left = less(balance(context, &account)?, value, &account)?;
        let supply = self.total_supply(context)?.checked_sub(value);
        let supply = supply.ok_or_else(|| Error::new("there are fewer tokens than these"))?;
        context.put_json(TOTAL_SUPPLY, &supply)?;
        put_number(context, &balance_key(&account)?, left)?;
        context.emit_json("Transfer", &Transfer { from: account, to: NOBODY.to_owned(), value })?;
        Ok(true)
    }
}

consort_chaincode_sdk::chaincode!(Token);

fn settings(context: &Context<'_>) -> Result<Settings, Error> {
    context
        .get_json(SETTINGS)?
        .ok_or_else(|| Error::new("the token is not initialized: call Initialize first"))
}

/// The caller's account, if it belongs to the issuer.
fn issuer(context: &Context<'_>) -> Result<String, Error> {
    let client = context.client()?;
    client.require_msp_id(&settings(context)?.issuer)?;
    Ok(client.id)
}

fn balance_key(account: &str) -> Result<String, Error> {
    composite_key("balance", &[account])
}

fn allowance_key(owner: &str, spender: &str) -> Result<String, Error> {
    composite_key("allowance", &[owner, spender])
}

fn balance(context: &Context<'_>, account: &str) -> Result<u64, Error> {
    Ok(context.get_json(&balance_key(account)?)?.unwrap_or(0))
}

/// Nothing is kept of a number that is zero.
fn put_number(context: &Context<'_>, key: &str, number: u64) -> Result<(), Error> {
    if number == 0 { context.delete(key) } else { context.put_json(key, &number) }
}

fn positive(value: u64) -> Result<(), Error> {
    if value == 0 { Err(Error::with_status(400, "the number of tokens must be positive")) } else { Ok(()) }
}

fn less(balance: u64, value: u64, account: &str) -> Result<u64, Error> {
    balance
        .checked_sub(value)
        .ok_or_else(|| Error::with_status(403, format!("{account} has {balance} tokens, and needs {value}")))
}

/// Moves tokens. A transaction does not see its own writes, so the same account twice would be written twice: it is refused.
fn pay(context: &Context<'_>, from: &str, to: &str, value: u64) -> Result<bool, Error> {
    settings(context)?;
    if from == to {
        return Err(Error::with_status(
            400,
            "tokens cannot be transferred to the account that they come from",
        ));
    }
    if to.is_empty() || to == NOBODY {
        return Err(Error::with_status(
            400,
            "tokens cannot be transferred to nobody; the issuer can Burn them",
        ));
    }
    let left = less(balance(context, from)?, value, from)?;
    let received = balance(context, to)?.checked_add(value);
    let received = received.ok_or_else(|| Error::new("the account cannot hold that many tokens"))?;
    put_number(context, &balance_key(from)?, left)?;
    put_number(context, &balance_key(to)?, received)?;
    context.emit_json("Transfer", &Transfer { from: from.to_owned(), to: to.to_owned(), value })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use consort_chaincode_sdk::testing::{Conflict, MemoryLedger};

    use super::*;

    fn account(name: &str) -> String {
        MemoryLedger::client("Org1MSP", name).id
    }

    fn act_as(ledger: &mut MemoryLedger, name: &str) {
        ledger.set_client(MemoryLedger::client("Org1MSP", name));
    }

    fn minted() -> MemoryLedger {
        let mut ledger = MemoryLedger::new();
        act_as(&mut ledger, "Ann");
        ledger.submit(&chaincode(), "Initialize", &["Gold", "AU", "2"]).unwrap();
        ledger.submit(&chaincode(), "Mint", &["1000"]).unwrap();
        ledger
    }

    fn number(ledger: &MemoryLedger, function: &str, arguments: &[&str]) -> u64 {
        String::from_utf8(ledger.evaluate(&chaincode(), function, arguments).unwrap())
            .unwrap()
            .parse()
            .unwrap()
    }

    #[test]
    fn the_token_has_the_name_that_it_was_given_once() {
        let mut ledger = minted();
        assert_eq!(ledger.evaluate(&chaincode(), "TokenName", &[]).unwrap(), b"Gold");
        assert_eq!(ledger.evaluate(&chaincode(), "Symbol", &[]).unwrap(), b"AU");
        assert_eq!(ledger.evaluate(&chaincode(), "Decimals", &[]).unwrap(), b"2");
        assert_eq!(ledger.submit(&chaincode(), "Initialize", &["X", "X", "0"]).unwrap_err().status(), 409);
    }

    #[test]
    fn tokens_move_and_none_appears_or_vanishes() {
        let mut ledger = minted();
        ledger.submit(&chaincode(), "Transfer", &[&account("Bob"), "300"]).unwrap();
        assert_eq!(number(&ledger, "BalanceOf", &[&account("Ann")]), 700);
        assert_eq!(number(&ledger, "BalanceOf", &[&account("Bob")]), 300);
        assert_eq!(number(&ledger, "TotalSupply", &[]), 1000);
        assert_eq!(number(&ledger, "ClientAccountBalance", &[]), 700);
        let event: Transfer = serde_json::from_slice(&ledger.events().last().unwrap().payload).unwrap();
        assert_eq!(event, Transfer { from: account("Ann"), to: account("Bob"), value: 300 });
        ledger.submit(&chaincode(), "Burn", &["700"]).unwrap();
        assert_eq!(number(&ledger, "TotalSupply", &[]), 300);
    }

    #[test]
    fn nobody_pays_what_they_do_not_have() {
        let mut ledger = minted();
        act_as(&mut ledger, "Bob");
        let error = ledger.submit(&chaincode(), "Transfer", &[&account("Ann"), "1"]).unwrap_err();
        assert_eq!(error.message(), format!("{} has 0 tokens, and needs 1", account("Bob")));
        act_as(&mut ledger, "Ann");
        assert!(ledger.submit(&chaincode(), "Transfer", &[&account("Ann"), "1"]).is_err());
        assert!(ledger.submit(&chaincode(), "Transfer", &[&account("Bob"), "-1"]).is_err());
    }

    #[test]
    fn a_spender_spends_as_much_as_was_approved() {
        let mut ledger = minted();
        let (ann, bob, eve) = (account("Ann"), account("Bob"), account("Eve"));
        ledger.submit(&chaincode(), "Approve", &[&bob, "50"]).unwrap();
        act_as(&mut ledger, "Bob");
        ledger.submit(&chaincode(), "TransferFrom", &[&ann, &eve, "30"]).unwrap();
        assert_eq!(number(&ledger, "Allowance", &[&ann, &bob]), 20);
        assert_eq!(number(&ledger, "BalanceOf", &[&eve]), 30);
        assert_eq!(
            ledger.submit(&chaincode(), "TransferFrom", &[&ann, &eve, "21"]).unwrap_err().status(),
            403
        );
    }

    #[test]
    fn only_the_issuer_makes_tokens() {
        let mut ledger = minted();
        ledger.set_client(MemoryLedger::client("Org2MSP", "Eve"));
        assert_eq!(ledger.submit(&chaincode(), "Mint", &["1"]).unwrap_err().status(), 403);
        assert_eq!(ledger.submit(&chaincode(), "Burn", &["1"]).unwrap_err().status(), 403);
    }

    #[test]
    fn of_two_payments_from_one_balance_one_becomes_valid() {
        let mut ledger = minted();
        let pay = |to: &str| ledger.simulate(&chaincode(), "Transfer", &[&account(to), "1000"]).unwrap();
        let (first, second) = (pay("Bob"), pay("Eve"));
        ledger.commit(first).unwrap();
        assert!(matches!(ledger.commit(second), Err(Conflict::Read { .. })));
        assert_eq!(number(&ledger, "BalanceOf", &[&account("Eve")]), 0);
    }
}
