//! The pages below docs/ are tried as written: the commands that they show are run, in their order, and so are the programs.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use consort_e2e::{Network, repository};

/// The folder of the built programs: tests run from `<target>/<profile>/deps`.
fn programs() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    Ok(this.parent().and_then(Path::parent).context("this executable lies in no folder")?.to_owned())
}

/// The commands in a page's blocks, without what follows a comment. What is indented is output.
fn commands(page: &str) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(repository().join("docs").join(page))?;
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

    fn shell(&self, line: &str) -> Result<Output> {
        let run = Command::new("sh")
            .args(["-ec", line])
            .current_dir(self.folder.path())
            .env("PATH", &self.path)
            .env("CONSORT_NETWORK", &self.network)
            .env("CONSORT_CONFIG", self.folder.path().join("consort.toml"))
            .stdin(Stdio::null())
            .output();
        run.context("there is no sh")
    }

    /// Runs what a page shows, apart from the lines that begin in one of these ways.
    fn follow(&self, page: &str, but: &[&str]) -> Result<()> {
        let commands = commands(page)?;
        let wanted = commands.iter().filter(|line| !but.iter().any(|start| line.starts_with(start)));
        let mut run = 0;
        for line in wanted {
            let output = self.shell(line)?;
            let (said, error) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            ensure!(output.status.success(), "docs/{page}: {line}\n{said}\n{error}");
            run += 1;
        }
        ensure!(run > 0, "docs/{page} shows no command any more");
        Ok(())
    }
}

#[test]
fn the_first_application_events_and_a_change_of_the_channel_work_as_written() -> Result<()> {
    let network = Network::start("two-org-raft")?;
    let reader = Reader::of(&network)?;
    // A context names the network where `make up` puts it.
    reader.follow("first-application.md", &["consort context", "cargo "])?;
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

    // Another organisation's folder stands for that of the third one; its peers are elsewhere.
    let organisations = network.data().join("organizations/ordererOrganizations/example.com/msp");
    let page = std::fs::read_to_string(repository().join("docs/adding-an-organisation.md"))?;
    let change =
        page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).context("no change")?;
    std::fs::write(reader.folder.path().join("add-org3.yaml"), change)?;
    reader.shell(&format!("mkdir org3 && cp -r {} org3/msp", organisations.display()))?;
    let later = [
        "consort channel join",
        "consort config encode",
        "consort config compute",
        "consort channel sign update",
    ];
    reader.follow("adding-an-organisation.md", &[&later[..], &["consort channel apply update"]].concat())?;
    changes_the_configuration_itself(&reader)
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
    for line in last {
        let output = reader.shell(line)?;
        ensure!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[test]
fn the_page_about_identities_works_as_written() -> Result<()> {
    let network = Network::start("one-org-solo")?;
    let reader = Reader::of(&network)?;
    std::os::unix::fs::symlink(
        network.data().join("organizations"),
        reader.folder.path().join("organizations"),
    )?;
    // Not on this network: the table of identities, and a second organisation.
    let elsewhere = [
        "consort network up",
        "consort channel identities",
        "consort channel policy --path /Channel/Application/Admins",
        "consort channel policy --rule",
    ];
    reader.follow("identities.md", &elsewhere)
}

#[test]
fn the_page_about_privacy_works_as_written() -> Result<()> {
    let network = Network::start("hospital")?;
    let reader = Reader::of(&network)?;
    std::fs::write(reader.folder.path().join("record.txt"), "blood group 0-")?;
    // The collections' commands are for a network with a chaincode, and no share waits here for its proxy.
    reader.follow(
        "privacy.md",
        &["consort chaincode deploy", "consort peer private", "consort sealed deliver"],
    )?;
    ensure!(std::fs::read_to_string(reader.folder.path().join("read.txt"))? == "blood group 0-");
    Ok(())
}
