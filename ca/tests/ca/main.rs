//! A serving authority, judged from outside: by our client, by raw requests, by Fabric's published client.

mod authorities;
mod fabric_ca_client;
mod http;
mod refusals;
mod rest_api;
mod serving;
mod start;
