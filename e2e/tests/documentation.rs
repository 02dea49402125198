//! The pages below docs/ are tried as written: the commands that they show are run, in their order, and so are the programs.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use consort_e2e::{Network, move_to_free_ports, repository};

/// The folder of the built programs: tests run from `<target>/<profile>/deps`.
fn programs() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    Ok(this.parent().and_then(Path::parent).context("this executable lies in no folder")?.to_owned())
}

/// A page's text.
fn text_of(page: &str) -> Result<String> {
    Ok(std::fs::read_to_string(repository().join("docs").join(page))?)
}

/// The commands in a page's blocks, without what follows a comment. What is indented is output.
fn commands(page: &str) -> Result<Vec<String>> {
    let text = text_of(page)?;
    let blocks = text.split("```").skip(1).step_by(2).filter(|block| block.starts_with('\n'));
    let lines = blocks.flat_map(|block| block.lines().map(|line| line.trim_start_matches("$ ")));
    let commands = lines.map(|line| line.split("  #").next().unwrap_or(line).trim_end());
    let starts = ["consort ", "openssl ", "echo ", "cp "];
    Ok(commands
        .filter(|line| starts.iter().any(|start| line.starts_with(start)))
        .map(str::to_owned)
        .collect())
}

/// A shell in a folder of its own, with `consort` on its path and the network named by the environment.
struct Reader {
    folder: tempfile::TempDir,
    path: String,
    network: PathBuf,
}

impl Reader {
    fn of(network: &Network) -> Result<Self> {
        let path = format!("{}:{}", programs()?.display(), std::env::var("PATH")?);
        Ok(Self { folder: tempfile::TempDir::with_prefix("consort-docs-")?, path, network: network.data() })
    }

    /// A line in a shell.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-ec", line])
            .current_dir(self.folder.path())
            .env("PATH", &self.path)
            .env("CONSORT_NETWORK", &self.network)
            .env("CONSORT_CONFIG", self.folder.path().join("consort.toml"))
            .stdin(Stdio::null());
        command
    }

    fn shell(&self, line: &str) -> Result<Output> {
        self.command(line).output().context("there is no sh")
    }

    /// Writes the files that a page shows with their names, on free ports.
    fn writes_the_files_of(&self, page: &str) -> Result<()> {
        let (text, _) = move_to_free_ports(&text_of(page)?)?;
        for block in text.split("```yaml\n# ").skip(1) {
            let (name, rest) = block.split_once('\n').context("a file has a name")?;
            let file = self.folder.path().join(name);
            std::fs::create_dir_all(file.parent().context("a file lies in a folder")?)?;
            std::fs::write(file, rest.split("```").next().unwrap_or(rest))?;
        }
        Ok(())
    }

    /// Runs a command; gives what it printed when it succeeded.
    fn run(&self, line: &str) -> Result<String> {
        let output = self.shell(line)?;
        let (said, error) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{line}\n{said}\n{error}");
        Ok(said.into_owned())
    }

    /// Runs a command that must fail with exit status 1; gives its message.
    fn refused(&self, line: &str) -> Result<String> {
        let output = self.shell(line)?;
        ensure!(output.status.code() == Some(1), "{line}: {output:?}");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Runs those commands that a page shows which are wanted.
    fn follow(&self, page: &str, is_wanted: impl Fn(&str) -> bool) -> Result<()> {
        let commands = commands(page)?;
        let wanted: Vec<&String> = commands.iter().filter(|line| is_wanted(line)).collect();
        ensure!(!wanted.is_empty(), "docs/{page} shows no command any more");
        wanted.iter().try_for_each(|line| self.run(line).map(drop)).with_context(|| format!("docs/{page}"))
    }

    /// A reader in a folder that shows the network's credentials, as its data folder does.
    fn beside_the_credentials_of(network: &Network) -> Result<Self> {
        let reader = Self::of(network)?;
        let credentials = network.data().join("organizations");
        std::os::unix::fs::symlink(credentials, reader.folder.path().join("organizations"))?;
        Ok(reader)
    }
}

#[test]
fn the_first_application_and_events_work_as_written() -> Result<()> {
    let network = Network::start("two-org-raft")?;
    let reader = Reader::of(&network)?;
    // `make up` puts the network there, and a context names it so.
    std::fs::create_dir(reader.folder.path().join(".consort"))?;
    std::os::unix::fs::symlink(network.data(), reader.folder.path().join(".consort/two-org-raft"))?;
    reader.follow("first-application.md", |_| true)?;
    let data = network.data().display().to_string();
    let application = Command::new(programs()?.join("examples/first_application"))
        .arg(&data)
        .output()
        .context("not built")?;
    let (said, error) =
        (String::from_utf8_lossy(&application.stdout), String::from_utf8_lossy(&application.stderr));
    ensure!(said.contains("\"Owner\":\"Ada\""), "{said}\n{error}");
    remembers_its_place(&network, &reader, &data)?;
    goes_through_maintenance(&network, &reader)?;
    shows_what_happens(&reader)
}

/// How many transactions may be committed until the first one is shown.
const WATCHED_MAX: u32 = 100;

/// The commands of the page about events: both go on until something happens.
fn shows_what_happens(reader: &Reader) -> Result<()> {
    let lines = commands("events.md")?;
    let [all, one] = lines.iter().filter(|line| line.starts_with("consort")).collect::<Vec<_>>()[..] else {
        bail!("docs/events.md shows {lines:?}");
    };
    let mut watching = reader.command(&format!("exec {all}")).stdout(Stdio::piped()).spawn()?;
    let seen = BufReader::new(watching.stdout.take().context("no output")?);
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut calls = seen.lines().map_while(Result::ok).filter(|line| line.contains("CreateAsset"));
        calls.next().map(|line| tell.send(line))
    });
    // Nobody says when the stream is open, so something happens until it was seen.
    let happening = (0..WATCHED_MAX).find_map(|number| {
        let said = reader.run(&format!("consort tx submit basic CreateAsset watched{number} red 1 Ada 1"));
        told.recv_timeout(Duration::from_millis(100)).ok().map(|line| (said, line))
    });
    watching.kill()?;
    watching.wait()?;
    let (said, line) = happening.context("nothing was shown")?;
    ensure!(line.contains("watched"), "{line}");
    let said = said?;
    let id = said.split_whitespace().find(|word| word.len() == 64).context("no id")?;
    let fate = reader.run(&one.replace("<transaction id>", id))?;
    ensure!(fate.contains("VALID"), "{fate}");
    Ok(())
}

/// What an organisation has started in the reader's folder ends with the test.
struct Organisation<'r>(&'r Reader);

impl Drop for Organisation<'_> {
    fn drop(&mut self) {
        let _ = self.0.shell("consort network down --data .consort/org3");
    }
}

#[test]
fn a_third_organisation_joins_as_written() -> Result<()> {
    let network = Network::start("two-org-raft")?;
    let reader = Reader::of(&network)?;
    let page = "adding-an-organisation.md";
    reader.writes_the_files_of(page)?;
    let _org3 = Organisation(&reader);
    let commands = commands(page)?;
    let example = format!("--path {}/chaincode-sdk", repository().display());
    for line in commands.iter().take_while(|line| !line.starts_with("consort config encode")) {
        if line.starts_with("consort channel sign add-org3") {
            is_refused_before_all_have_signed(&reader)?;
        }
        reader
            .run(&line.replace("--path chaincode-sdk", &example))
            .with_context(|| format!("docs/{page}"))?;
    }
    is_a_member_like_the_others(&reader)?;
    changes_the_configuration_itself(&reader)
}

/// Neither an unsigned plan nor one signature of two changes anything, and until then the orderers give the new one no blocks.
fn is_refused_before_all_have_signed(reader: &Reader) -> Result<()> {
    let said = reader.refused("consort channel apply add-org3.update --as Admin@org1.example.com")?;
    ensure!(said.contains("add-org3.update lacks signatures:") && said.contains("Org2MSP"), "{said}");
    ensure!(said.contains("consort channel sign add-org3.update --as"), "{said}");
    let of_a_user = reader.refused("consort channel apply add-org3.update --as User1@org2.example.com")?;
    ensure!(of_a_user.contains("lacks signatures"), "{of_a_user}");
    let early =
        reader.refused("consort channel join --peer peer0.org3.example.com --network .consort/org3")?;
    ensure!(early.contains("to Org3MSP") && early.contains("FORBIDDEN"), "{early}");
    let up = reader.run("consort network up --config org3")?;
    ensure!(up.contains("peer0.org3.example.com is not in channel mychannel yet"), "{up}");
    Ok(())
}

/// Its endorsement is in the books, the others' gateways find it, and its peer comes back with all that it had.
fn is_a_member_like_the_others(reader: &Reader) -> Result<()> {
    let block = reader.run("consort block show newest")?;
    let endorsers = block.lines().find(|line| line.contains("endorsed by")).context("no endorsers")?;
    ensure!(
        endorsers.contains("peer0.org3.example.com (Org3MSP)") && !endorsers.contains("Org2MSP"),
        "{block}"
    );
    let call =
        "consort tx submit basic TransferAsset asset30 Linus --organisation Org1MSP --organisation Org3MSP";
    let began = Instant::now();
    // Org1's peer hears of the new one at its next round of questions.
    while !reader.shell(call)?.status.success() {
        ensure!(began.elapsed() < Duration::from_secs(60), "{:?}", reader.shell(call)?);
    }
    let approvals = reader.run("consort chaincode query basic")?;
    ensure!(approvals.contains("Org3MSP: approved"), "{approvals}");
    reader.run("consort network down --data .consort/org3")?;
    let again = reader.run("consort network up --config org3")?;
    ensure!(again.contains("peer0.org3.example.com is in channel mychannel, at height"), "{again}");
    let asset = reader.run("consort tx evaluate basic ReadAsset asset30 --network .consort/org3")?;
    ensure!(asset.contains("Linus"), "{asset}");
    Ok(())
}

/// The end of the page: the configuration as JSON, changed by hand.
fn changes_the_configuration_itself(reader: &Reader) -> Result<()> {
    let folder = reader.folder.path();
    let decoded: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
    let mut config = decoded["data"]["data"][0]["payload"]["data"]["config"].clone();
    std::fs::write(folder.join("old.json"), serde_json::to_vec(&config)?)?;
    config["channel_group"]["groups"]["Orderer"]["values"]["BatchSize"]["value"]["max_message_count"] =
        31.into();
    std::fs::write(folder.join("new.json"), serde_json::to_vec(&config)?)?;
    let lines = commands("adding-an-organisation.md")?;
    let last: Vec<&String> =
        lines.iter().skip_while(|line| !line.starts_with("consort config encode")).collect();
    ensure!(last.len() == 4, "{last:?}");
    last.iter().try_for_each(|line| reader.run(line).map(drop))
}

/// The reader of events is stopped, something happens, and it goes on where it was.
fn remembers_its_place(network: &Network, reader: &Reader, data: &str) -> Result<()> {
    let listen = |create: &str| -> Result<String> {
        let mut child = Command::new(programs()?.join("examples/events"))
            .args([data, "checkpoint.json"])
            .current_dir(reader.folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .context("the example events is not built")?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        ensure!(lines.next().context("it ended")?? == "listening");
        network
            .consort(&["tx", "submit", "basic", "CreateAsset", create, "red", "1", "Ada", "1"])?
            .expect_success()?;
        let event = lines.next().context("it ended")??;
        // The next event comes after the checkpoint of the first one was saved.
        network.consort(&["tx", "submit", "basic", "TransferAsset", create, "Max"])?.expect_success()?;
        lines.next().context("it ended")??;
        child.kill()?;
        child.wait()?;
        Ok(event)
    };
    assert!(listen("seen1")?.contains("\"ID\":\"seen1\""));
    let again = listen("seen2")?;
    // What came after the last checkpoint may come once more; what was before it may not.
    assert!(!again.starts_with("CreateAsset") || again.contains("seen2"), "{again}");
    Ok(())
}

/// Of the operators' page: into maintenance and out of it again.
fn goes_through_maintenance(network: &Network, reader: &Reader) -> Result<()> {
    let create = |id: &str| {
        network.consort(&[
            "tx",
            "submit",
            "basic",
            "CreateAsset",
            id,
            "red",
            "1",
            "Ada",
            "1",
            "--output",
            "json",
        ])
    };
    let page = commands("operations.md")?;
    let lines = page.iter().filter(|line| line.contains("enter.") || line.contains("leave."));
    let (enter, leave): (Vec<&String>, Vec<&String>) = lines.partition(|line| line.contains("enter."));
    ensure!((enter.len(), leave.len()) == (3, 3), "{enter:?} {leave:?}");
    let run = |lines: &[&String]| -> Result<String> {
        let mut said = String::new();
        for line in lines {
            let output = reader.shell(line)?;
            ensure!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
            said = String::from_utf8_lossy(&output.stdout).into_owned();
        }
        Ok(said)
    };
    assert!(run(&enter)?.contains("peers hear of it when maintenance ends"));
    let refused = create("in-maintenance")?.expect_failure()?;
    assert!(refused.contains("normal transactions are rejected: maintenance mode"), "{refused}");
    run(&leave)?;
    create("after-maintenance")?.expect_success()?;
    Ok(())
}

/// What the page about identities shows for a network with a table of identities and several organisations.
const OF_SEVERAL: [&str; 3] = ["peer1", "consort channel identities", "consort channel policy"];

#[test]
fn the_page_about_identities_works_as_written() -> Result<()> {
    let network = Network::start("one-org-solo")?;
    let reader = Reader::beside_the_credentials_of(&network)?;
    reader.follow("identities.md", |line| {
        !line.starts_with("consort network up") && !OF_SEVERAL.iter().any(|part| line.contains(part))
    })
}

#[test]
fn the_table_of_identities_and_policies_of_several_organisations_work_as_written() -> Result<()> {
    let network = Network::start("registered")?;
    let reader = Reader::beside_the_credentials_of(&network)?;
    reader.follow("identities.md", |line| OF_SEVERAL.iter().any(|part| line.contains(part)))?;
    let listed = reader.run("consort channel identities list")?;
    let of_peer1 = listed.lines().filter(|line| line.contains("peer1.org1.example.com"));
    ensure!(of_peer1.count() == 2 && listed.contains("retired"), "{listed}");
    let alone = "consort channel policy --path /Channel/Application/Admins --signers Admin@org1.example.com";
    reader.refused(alone).map(drop)
}

#[test]
fn the_page_about_privacy_works_as_written() -> Result<()> {
    let network = Network::start("hospital")?;
    let reader = Reader::of(&network)?;
    std::fs::write(reader.folder.path().join("record.txt"), "blood group 0-")?;
    // The collections' commands are for a network with a chaincode, and no share waits here for its proxy.
    let elsewhere = ["consort chaincode deploy", "consort peer private", "consort sealed deliver"];
    reader.follow("privacy.md", |line| !elsewhere.iter().any(|start| line.starts_with(start)))?;
    ensure!(std::fs::read_to_string(reader.folder.path().join("read.txt"))? == "blood group 0-");
    Ok(())
}
