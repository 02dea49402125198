//! Channels joined, followed and left while orderers run.

use consort_crypto::hash::HashAlgorithm;
use consort_protos::{
    block,
    fabric::{
        common::{Block, ConfigEnvelope, Envelope, HeaderType, Payload, Status},
        orderer::ConsensusType,
    },
};
use prost::Message;

use crate::{
    set_batch,
    support::{CHANNEL, Choices, Network, eventually, sign},
};

/// A message for another channel than the usual one.
fn message(network: &Network, channel: &str, data: &str) -> Envelope {
    sign(&network.members.identity("client"), channel, HeaderType::EndorserTransaction, data.into())
}

async fn order(network: &Network, index: usize, envelope: &Envelope) {
    network.order(index, envelope).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderer_that_is_no_consenter_follows_the_channel() {
    let mut network = Network::new(2, Choices { consenters: 1, ..Choices::default() });
    for index in 0..2 {
        network.start(index).await;
        let (status, body) = network.join(index, network.genesis.encode_to_vec()).await;
        assert_eq!(status, 201, "{body}");
    }
    for number in 0..3 {
        network.order(0, &network.message(&format!("message {number}"))).await;
    }
    network.until(1, CHANNEL, ("follower", "active", 4)).await;
    assert_eq!(network.block(1, 3).await.data, network.block(0, 3).await.data);
    let refused = network.broadcast(1, network.message("to a follower")).await;
    assert_eq!(refused.status(), Status::BadRequest);
    assert!(refused.info.starts_with("channel does not exist"), "{refused:?}");
    assert_eq!(network.operations(1, "/healthz").await.0, 200);

    network.stop(1).await;
    network.order(0, &network.update(0, |root| set_batch(root, 7)).await).await;
    network.order(0, &network.message("while the follower is away")).await;
    network.start(1).await;
    network.until(1, CHANNEL, ("follower", "active", 6)).await;
    assert_eq!(network.bundle(1).await.orderer().batch.max_message_count, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_joined_by_a_later_configuration_block_and_fetched_up_to_it() {
    let mut network = Network::new(2, Choices { consenters: 1, ..Choices::default() });
    network.start(0).await;
    network.join(0, network.genesis.encode_to_vec()).await;
    network.order(0, &network.message("one")).await;
    network.order(0, &network.update(0, |root| set_batch(root, 7)).await).await;
    network.order(0, &network.message("three")).await;
    let config = network.block(0, 2).await;
    network.start(1).await;
    let (status, body) = network.join(1, config.encode_to_vec()).await;
    assert_eq!(status, 201, "{body}");
    assert!(body.contains(r#""consensusRelation":"follower","status":"onboarding","height":0"#), "{body}");
    network.until(1, CHANNEL, ("follower", "active", 4)).await;
    network.order(0, &network.message("four")).await;
    network.until(1, CHANNEL, ("follower", "active", 5)).await;
    assert!(!network.channel_folder(1, CHANNEL).join("join.block").exists());

    let (status, body) = network.remove(1, CHANNEL).await;
    assert_eq!(status, 204, "{body}");
    // A block that its consenters do not have: another configuration under the same number.
    let mut other = config;
    let mut forged = network.genesis_of(CHANNEL);
    forged.header.as_mut().unwrap().number = 2;
    other.header = forged.header;
    other.data = forged.data;
    let (status, body) = network.join(1, other.encode_to_vec()).await;
    assert_eq!(status, 201, "{body}");
    let failed = eventually(async || {
        let (_, is) = network.describe(1, CHANNEL).await;
        (is["status"] == "failed").then_some(is)
    })
    .await;
    assert_eq!(failed["height"], 3, "{failed}");
    let (_, health) = network.operations(1, "/healthz").await;
    assert!(health.contains("do not lead to block 2 by which the channel was joined"), "{health}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderer_without_others_to_fetch_from_waits_and_can_leave() {
    let mut network = Network::new(2, Choices { consenters: 1, ..Choices::default() });
    network.start(0).await;
    network.join(0, network.genesis.encode_to_vec()).await;
    network.order(0, &network.update(0, |root| set_batch(root, 7)).await).await;
    let config = network.block(0, 1).await;
    network.stop(0).await;
    network.start(1).await;
    assert_eq!(network.join(1, config.encode_to_vec()).await.0, 201);
    network.stop(1).await;
    network.start(1).await;
    network.until(1, CHANNEL, ("follower", "onboarding", 0)).await;
    let (status, health) = network.operations(1, "/healthz").await;
    assert_eq!(status, 503);
    assert!(health.contains("no orderer has delivered its first block yet"), "{health}");
    assert_eq!(network.remove(1, CHANNEL).await.0, 204);
    assert_eq!(network.describe(1, CHANNEL).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_channel_leaves_the_others_running_and_shows() {
    let mut network = Network::up(1, Choices::default()).await;
    let second = network.genesis_of("second");
    assert_eq!(network.join(0, second.encode_to_vec()).await.0, 201);
    network.order(0, &network.message("in the first")).await;
    order(&network, 0, &message(&network, "second", "in the second")).await;
    network.stop(0).await;
    std::fs::write(network.channel_folder(0, CHANNEL).join("blocks/CURRENT"), "garbage").unwrap();
    network.start(0).await;
    order(&network, 0, &message(&network, "second", "in the second, again")).await;
    let (_, list) = network.describe(0, "").await;
    let names: Vec<_> = list["channels"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names, [CHANNEL, "second"]);
    let (_, first) = network.describe(0, CHANNEL).await;
    assert_eq!((first["status"].as_str(), first["height"].as_u64()), (Some("failed"), Some(0)));
    let (status, health) = network.operations(0, "/healthz").await;
    assert_eq!(status, 503);
    assert!(health.contains(&format!("{CHANNEL}: ")) && !health.contains("second: "), "{health}");
    let refused = network.broadcast(0, network.message("to the damaged one")).await;
    assert_eq!(refused.status(), Status::BadRequest, "{refused:?}");
    assert_eq!(network.remove(0, CHANNEL).await.0, 204);
    assert_eq!(network.join(0, network.genesis.encode_to_vec()).await.0, 201);
    network.until(0, CHANNEL, ("consenter", "active", 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_was_left_can_be_joined_again_at_once_whoever_reads_it() {
    let network = Network::up(1, Choices::default()).await;
    for round in 0..5 {
        network.order(0, &network.message(&format!("round {round}"))).await;
        // A reader that waits for a block that never comes.
        let waiting = network.read_from(0, 2).await;
        let (status, body) = network.remove(0, CHANNEL).await;
        assert_eq!(status, 204, "{body}");
        assert_eq!(network.remove(0, CHANNEL).await.0, 404);
        let (status, body) = network.join(0, network.genesis.encode_to_vec()).await;
        assert_eq!(status, 201, "{body}");
        drop(waiting);
    }
}

/// The first block of a channel whose orderers would have to be those of Fabric's BFT.
fn with_bft(genesis: &Block) -> Block {
    let mut altered = genesis.clone();
    let data = altered.data.as_mut().unwrap();
    let mut envelope = Envelope::decode(data.data[0].clone()).unwrap();
    let mut payload = Payload::decode(envelope.payload).unwrap();
    let mut whole = ConfigEnvelope::decode(payload.data).unwrap();
    let root = whole.config.as_mut().unwrap().channel_group.as_mut().unwrap();
    let orderer = root.groups.get_mut("Orderer").unwrap();
    let entry = orderer.values.get_mut("ConsensusType").unwrap();
    let mut consensus = ConsensusType::decode(entry.value.clone()).unwrap();
    consensus.r#type = "BFT".to_owned();
    entry.value = consensus.encode_to_vec().into();
    payload.data = whole.encode_to_vec().into();
    envelope.payload = payload.encode_to_vec().into();
    data.data[0] = envelope.encode_to_vec().into();
    let data_hash = HashAlgorithm::default().block_data_hash(data);
    altered.header.as_mut().unwrap().data_hash = data_hash.to_vec().into();
    altered
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_refuses_what_is_no_configuration_block_of_a_channel() {
    let network = Network::up(1, Choices::default()).await;
    network.order(0, &network.message("fine")).await;
    let (status, body) = network.join(0, network.block(0, 1).await.encode_to_vec()).await;
    assert_eq!(
        (status, body.as_str()),
        (400, r#"{"error":"invalid join block: block is not a config block"}"#)
    );
    let (status, body) = network.join(0, with_bft(&network.genesis).encode_to_vec()).await;
    assert_eq!(status, 400, "{body}");
    assert!(body.contains(r#"consensus type \"BFT\" is not supported, only etcdraft is"#), "{body}");
    assert_eq!(network.describe(0, "NoChannel").await.0, 400);
    assert_eq!(network.describe(0, "elsewhere").await.0, 404);
    assert_eq!(network.describe(0, "elsewhere/blocks/newest").await.0, 404);
    assert_eq!(network.describe(0, "mychannel/blocks/nonsense").await.0, 400);
    assert_eq!(network.describe(0, "mychannel/blocks/9").await.0, 404);
    let (client, base) = network.admin(0);
    for (name, number) in [("oldest", 0), ("newest", 1), ("config", 0), ("1", 1)] {
        let response = client.get(format!("{base}/{CHANNEL}/blocks/{name}")).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/octet-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let found = Block::decode(response.bytes().await.unwrap()).unwrap();
        assert_eq!(block::number(&found).get(), number);
    }
}

/// The form as Go's `mime/multipart` writes it, with a boundary that osnadmin drew.
fn form_of_osnadmin(part: &str, file: &str, content: &[u8]) -> (String, Vec<u8>) {
    let boundary = "74b52e6fec1fe7efcfbae5a89351462b892ed786bfeb156058b3d9bcbb80";
    let mut body = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"{part}\"; filename=\"{file}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(content);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

/// The requests of `osnadmin` (Fabric 3.1.5), recorded from the program: method, path, headers and body.
#[tokio::test(flavor = "multi_thread")]
async fn each_request_of_osnadmin_is_answered_as_its_users_expect() {
    let mut network = Network::new(1, Choices::default());
    network.start(0).await;
    let (client, base) = network.admin(0);
    let ask = async |method: reqwest::Method, path: &str, form: Option<(String, Vec<u8>)>| {
        let mut request = client
            .request(method, format!("{base}{path}"))
            .header("User-Agent", "Go-http-client/1.1")
            .header("Accept-Encoding", "gzip");
        if let Some((kind, body)) = form {
            request = request.header("Content-Type", kind).body(body);
        }
        let response = request.send().await.unwrap();
        let headers = response.headers().clone();
        (response.status().as_u16(), headers, response.bytes().await.unwrap())
    };
    let (get, post, put) = (reqwest::Method::GET, reqwest::Method::POST, reqwest::Method::PUT);

    let genesis = network.genesis.encode_to_vec();
    let join = form_of_osnadmin("config-block", "config.block", &genesis);
    let (status, headers, body) = ask(post.clone(), "", Some(join.clone())).await;
    let description = r#"{"name":"mychannel","url":"/participation/v1/channels/mychannel","consensusRelation":"consenter","status":"active","height":1}"#;
    assert_eq!((status, body.as_ref()), (201, description.as_bytes()));
    assert_eq!(headers["location"], "/participation/v1/channels/mychannel");
    assert_eq!(ask(post, "", Some(join)).await.0, 405);

    let (status, headers, body) = ask(get.clone(), "", None).await;
    let list = r#"{"systemChannel":null,"channels":[{"name":"mychannel","url":"/participation/v1/channels/mychannel"}]}"#;
    assert_eq!((status, body.as_ref()), (200, list.as_bytes()));
    assert_eq!(
        (&headers["cache-control"], &headers["content-type"]),
        (&"no-store".parse().unwrap(), &"application/json".parse().unwrap())
    );
    assert_eq!(ask(get.clone(), "/mychannel", None).await.2, description.as_bytes());

    network.order(0, &network.message("before the update")).await;
    let update = network.update(0, |root| set_batch(root, 7)).await.encode_to_vec();
    let update = form_of_osnadmin("config-update-envelope", "config-update.envelope", &update);
    let (status, _, body) = ask(put, "", Some(update)).await;
    assert_eq!((status, body.as_ref()), (201, b"".as_slice()));

    let (status, headers, body) = ask(get.clone(), "/mychannel/blocks/newest", None).await;
    assert_eq!((status, &headers["content-type"]), (200, &"application/octet-stream".parse().unwrap()));
    assert_eq!(Block::decode(body).unwrap().header.unwrap().number, 2);

    let (status, _, body) = ask(reqwest::Method::DELETE, "/mychannel", None).await;
    assert_eq!((status, body.as_ref()), (204, b"".as_slice()));
    let (status, _, body) = ask(get, "/mychannel", None).await;
    assert_eq!((status, body.as_ref()), (404, br#"{"error":"channel does not exist"}"#.as_slice()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_does_not_offer_is_refused_with_what_it_does() {
    let network = Network::up(1, Choices::default()).await;
    let (client, base) = network.admin(0);
    let one = format!("{base}/{CHANNEL}");
    let newest = format!("{one}/blocks/newest");
    for (method, url, allowed) in [
        (reqwest::Method::DELETE, &base, "GET, POST, PUT"),
        (reqwest::Method::POST, &one, "GET, DELETE"),
        (reqwest::Method::PUT, &newest, "GET"),
    ] {
        let response = client.request(method.clone(), url).send().await.unwrap();
        assert_eq!(response.status(), 405, "{method} {url}");
        assert_eq!(response.headers()["allow"], allowed);
        assert_eq!(response.text().await.unwrap(), r#"{"error":"invalid request method"}"#);
    }
    for (accepted, status) in
        [("text/html", 406), ("text/html, application/json", 200), ("application/*", 200), ("*/*", 200)]
    {
        for url in [&base, &one] {
            let response = client.get(url).header("Accept", accepted).send().await.unwrap();
            assert_eq!(response.status(), status, "{accepted} of {url}");
        }
    }
    let above = base.trim_end_matches("channels");
    let response = client.get(above).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.url().as_str()), (200, base.as_str()), "a redirect");

    let (status, body) = network.join(0, Vec::new()).await;
    assert_eq!((status, body.contains("is not a config block")), (400, true), "{body}");
    let form = reqwest::multipart::Form::new().text("another-part", "a block");
    let response = client.post(&base).multipart(form).send().await.unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(
        response.text().await.unwrap(),
        r#"{"error":"form must contain exactly one file part, config-block"}"#
    );
}

/// Numbers that are spread out (xorshift64*), the same in every run.
fn numbers() -> impl FnMut(usize) -> usize {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |bound| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

/// A form of which some bytes were changed, left out, put in or repeated.
fn damaged(form: &[u8], number: &mut impl FnMut(usize) -> usize) -> Vec<u8> {
    let mut bytes = form.to_vec();
    for _ in 0..=number(3) {
        let at = number(bytes.len());
        match number(4) {
            0 => bytes[at] ^= 1 << number(8),
            1 => bytes.truncate(at.max(1)),
            2 => bytes.insert(at, b"\r\n-\"\0\xff"[number(6)]),
            _ => bytes.extend_from_within(at..),
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_form_is_refused_and_the_orderer_goes_on() {
    let mut network = Network::new(1, Choices::default());
    network.start(0).await;
    let (client, base) = network.admin(0);
    let mut number = numbers();
    let genesis = network.genesis.encode_to_vec();
    let forms = [
        (reqwest::Method::POST, form_of_osnadmin("config-block", "config.block", &genesis)),
        (reqwest::Method::PUT, form_of_osnadmin("config-update-envelope", "an.envelope", &genesis)),
    ];
    for (method, (kind, form)) in forms {
        for round in 0..150 {
            let body = damaged(&form, &mut number);
            let request = client.request(method.clone(), &base).header("Content-Type", &kind).body(body);
            let status = request.send().await.unwrap().status().as_u16();
            assert!(status == 201 || (400..500).contains(&status), "{method}, round {round}: {status}");
            if status == 201 {
                // What was damaged did not matter, such as the file's name.
                let list: serde_json::Value = client.get(&base).send().await.unwrap().json().await.unwrap();
                for channel in list["channels"].as_array().unwrap() {
                    let name = channel["name"].as_str().unwrap();
                    assert_eq!(network.remove(0, name).await.0, 204);
                }
            }
        }
    }
    assert_eq!(network.join(0, genesis).await.0, 201);
    network.until(0, CHANNEL, ("consenter", "active", 1)).await;
}
