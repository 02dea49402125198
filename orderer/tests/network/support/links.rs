//! Connections that a test can cut: one small TCP relay for each direction between two orderers.

use std::{collections::BTreeMap, net::SocketAddr};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// All relays of a network; they end with it.
pub(crate) struct Links {
    cuts: BTreeMap<(usize, usize), watch::Sender<bool>>,
    addresses: BTreeMap<(usize, usize), SocketAddr>,
    _relays: JoinSet<()>,
}

impl Links {
    /// Relays between orderers that listen at these ports.
    pub(super) fn new(ports: &[u16]) -> Self {
        let (mut cuts, mut addresses, mut relays) = (BTreeMap::new(), BTreeMap::new(), JoinSet::new());
        for from in 0..ports.len() {
            for (to, port) in ports.iter().enumerate().filter(|(to, _)| *to != from) {
                let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
                listener.set_nonblocking(true).unwrap();
                addresses.insert((from, to), listener.local_addr().unwrap());
                let cut = watch::Sender::new(false);
                let listener = TcpListener::from_std(listener).unwrap();
                relays.spawn(relay(listener, ([127, 0, 0, 1], *port).into(), cut.subscribe()));
                cuts.insert((from, to), cut);
            }
        }
        Self { cuts, addresses, _relays: relays }
    }

    /// Where `from` reaches `to`.
    pub(super) fn address(&self, from: usize, to: usize) -> Option<SocketAddr> {
        self.addresses.get(&(from, to)).copied()
    }

    /// Cuts everything to and from an orderer, or lets it through again.
    pub(super) fn cut(&self, index: usize, is_cut: bool) {
        for ((from, to), cut) in &self.cuts {
            if *from == index || *to == index {
                cut.send_replace(is_cut);
            }
        }
    }
}

/// Connections break when the link is cut, and new ones are closed at once.
async fn relay(listener: TcpListener, target: SocketAddr, cut: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    while let Ok((mut incoming, _)) = listener.accept().await {
        if *cut.borrow() {
            continue;
        }
        let mut cut = cut.clone();
        connections.spawn(async move {
            let Ok(mut outgoing) = TcpStream::connect(target).await else { return };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut incoming, &mut outgoing) => {}
                _ = cut.wait_for(|is_cut| *is_cut) => {}
            }
        });
    }
}
