//! The modules that the build script generates, nested as the protobuf packages are.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    rustdoc::all,
    reason = "generated code; the schemas document it"
)]

pub mod common {
    tonic::include_proto!("common");
}
pub mod consort {
    pub mod attestations {
        tonic::include_proto!("consort.attestations");
    }
    pub mod endorsement {
        tonic::include_proto!("consort.endorsement");
    }
    pub mod endorsing {
        tonic::include_proto!("consort.endorsing");
    }
    pub mod identities {
        tonic::include_proto!("consort.identities");
    }
    pub mod orderer {
        tonic::include_proto!("consort.orderer");
    }
    pub mod peer {
        tonic::include_proto!("consort.peer");
    }
    pub mod privatedata {
        tonic::include_proto!("consort.privatedata");
    }
    pub mod sealed {
        tonic::include_proto!("consort.sealed");
    }
}
pub mod discovery {
    tonic::include_proto!("discovery");
}
pub mod etcdraft {
    tonic::include_proto!("etcdraft");
}
pub mod gateway {
    tonic::include_proto!("gateway");
}
pub mod google {
    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
}
pub mod gossip {
    tonic::include_proto!("gossip");
}
pub mod kvrwset {
    tonic::include_proto!("kvrwset");
}
pub mod lifecycle {
    tonic::include_proto!("lifecycle");
}
pub mod msp {
    tonic::include_proto!("msp");
}
pub mod orderer {
    tonic::include_proto!("orderer");
}
pub mod protos {
    tonic::include_proto!("protos");
}
pub mod queryresult {
    tonic::include_proto!("queryresult");
}
pub mod rwset {
    tonic::include_proto!("rwset");
}
