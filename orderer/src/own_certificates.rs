//! The orderer's own certificates: renewed while it runs, and watched with those of its channels.

use std::sync::Arc;

use consort_crypto::certificate::Certificate;
use consort_msp::{MspManager, SigningIdentity};
use consort_node::{
    Clock, Metrics, Tasks,
    config::TlsConfig,
    dial::Dialer,
    renewal::{
        CertificateWatch, Current, FromFiles, Renewable, WatchedCertificate, channel_authorities, local_msp,
        signing_identity,
    },
    tls::ServerTls,
    trust::ClientTrust,
};

use crate::{config::OrdererConfig, registrar::Registrar};

/// What an orderer shows to others.
pub(crate) struct OwnCertificates<'a> {
    pub(crate) config: &'a OrdererConfig,
    pub(crate) identity: Current<SigningIdentity>,
    pub(crate) tls: &'a ServerTls,
    pub(crate) admin_tls: &'a ServerTls,
    pub(crate) dialer: Dialer,
    /// As it was at the start; the channels know the orderer by its key.
    pub(crate) own_certificate: Certificate,
    /// The own organisation's membership, by which its administrators are judged.
    pub(crate) local: Current<MspManager>,
    pub(crate) trust: Arc<ClientTrust>,
}

impl OwnCertificates<'_> {
    /// Takes over renewed certificates, and tells in time which ones end.
    pub(crate) fn watch(
        self,
        registrar: &Arc<Registrar>,
        metrics: &Metrics,
        clock: &Arc<dyn Clock>,
        tasks: &Tasks,
    ) {
        let mut watch = CertificateWatch::new(metrics, Arc::clone(clock));
        let (tls, admin_tls, signer) = (self.tls.clone(), self.admin_tls.clone(), self.identity.clone());
        watch.renew(signing_identity(&self.config.msp.folder, &self.identity, clock));
        let (msp, trust) = (&self.config.msp, self.trust);
        watch.renew(local_msp(&msp.folder, &msp.id, &self.local, move || trust.renew()));
        watch.renew(admin_tls.renewable(&self.config.admin.tls()));
        let tls_files = self.config.tls.clone();
        watch.renew(among_consenters(tls_files, tls.clone(), self.dialer, self.own_certificate));
        watch.certificates(move || {
            let shown = [("tls", tls.certificate()), ("admin", admin_tls.certificate())];
            let shown = shown.into_iter().filter_map(|(usage, shown)| Some((usage, shown.ok()?)));
            let signing = [("signing", signer.get().certificate().clone())];
            shown.chain(signing).map(|(usage, shown)| WatchedCertificate::own(usage, shown)).collect()
        });
        let registrar = Arc::clone(registrar);
        watch.certificates(move || {
            let names = registrar.names();
            let channels = names.iter().filter_map(|name| registrar.get(name));
            channels.flat_map(|channel| channel_authorities(&channel.state().bundle())).collect()
        });
        watch.start(tasks);
    }
}

/// Renews the certificate by which other consenters know this one. They compare its key with the channel's
/// configuration, so a certificate with another key would cut the orderer off.
fn among_consenters(
    config: TlsConfig,
    tls: ServerTls,
    dialer: Dialer,
    own_certificate: Certificate,
) -> Arc<dyn Renewable> {
    let files = vec![config.cert.clone(), config.key.clone()];
    let name = format!("TLS certificate {} among the consenters", config.cert.display());
    Arc::new(FromFiles::new(name, files, move || {
        let text = std::fs::read(&config.cert)
            .map_err(|error| format!("cannot read {}: {error}", config.cert.display()))?;
        let found = Certificate::from_pem(&text).map_err(|error| error.to_string())?;
        if found.public_key() != own_certificate.public_key() {
            return Err("it has another key, by which the channels' consenters do not know this orderer; renew it with \
                        the same key, or put the new one into the channels' configurations and restart"
                .to_owned());
        }
        tls.reload(&config)?;
        dialer.reload(&config)
    }))
}
