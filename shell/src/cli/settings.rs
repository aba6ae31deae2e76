//! `quorate settings list|get|set|delete|history|schema|import|export|watch`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use quorate_api::{ImportAnswer, SectionDocument, SettingsChanged, SettingsDocument};
use quorate_client::{Consistency, Import, SettingsChange, SettingsNews, Watched};
use serde_json::Value;

use super::connect::ConnectArgs;
use super::error::CliError;
use super::kv::OnceArgs;
use super::output::{Format, print, print_json, read_input, table, warn};
use crate::yaml::json::{from_yaml, to_yaml};

pub(super) const EXAMPLES: &str = "\
Examples:
  quorate settings set links docs '{\"url\": \"https://example.com\"}'    a value is JSON, or else a text
  quorate settings get links docs                                     one setting
  quorate settings list                                               the sections
  quorate settings list links                                         what is in one
  quorate settings history links docs                                 what it was before
  quorate settings schema set links schema.json                       what the section has to fit
  quorate settings export > settings.yaml                             everything
  quorate settings import settings.yaml --replace --dry-run           what an import would change";

const GET_EXAMPLES: &str = "\
Examples:
  quorate settings get links docs
  quorate settings get links docs --revision 12    as it was
  quorate settings get links docs -w json          with its revisions

Exit code 5 when there is no such setting.";

const SET_EXAMPLES: &str = "\
Examples:
  quorate settings set properties retries 3
  quorate settings set properties name 'a text'
  quorate settings set properties retries 4 --revision 12    only if nobody changed it since
  quorate settings set links docs - < docs.json              from standard input

A value that is no JSON is a text. Exit code 4 on a conflict, or when the section would not fit its schema.";

const IMPORT_EXAMPLES: &str = "\
Examples:
  quorate settings import settings.yaml                      all sections of the file
  quorate settings import links.yaml --section links         the file is one section
  quorate settings import settings.yaml --replace            what the file does not name is removed
  quorate settings import settings.yaml --replace --dry-run  only tells what would change

An import is one change: all of it is made, or nothing. Reads YAML, and JSON in files that end with .json.";

const EXPORT_EXAMPLES: &str = "\
Examples:
  quorate settings export > settings.yaml
  quorate settings export --section links
  quorate settings export --revision 12 -w json";

#[derive(Debug, Subcommand)]
pub(super) enum SettingsCommand {
    /// List the sections, or the settings of one
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  quorate settings list\n  quorate settings list links"
    )]
    List(ListArgs),
    /// Show a setting
    #[command(after_help = GET_EXAMPLES)]
    Get(GetArgs),
    /// Give a setting a value
    #[command(after_help = SET_EXAMPLES)]
    Set(SetArgs),
    /// Remove a setting, or a whole section
    #[command(
        visible_alias = "rm",
        after_help = "Examples:\n  quorate settings delete links docs\n  quorate settings delete links    the section, with its schema"
    )]
    Delete(DeleteArgs),
    /// Show what a setting was
    #[command(after_help = "Examples:\n  quorate settings history links docs --limit 5")]
    History(HistoryArgs),
    /// Show, set or remove what a section has to fit
    #[command(subcommand)]
    Schema(SchemaCommand),
    /// Write whole sections as one change
    #[command(after_help = IMPORT_EXAMPLES)]
    Import(ImportArgs),
    /// Print all settings, or a section, as YAML or JSON
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportArgs),
    /// Tell what becomes of settings, as it happens
    #[command(
        after_help = "Examples:\n  quorate settings watch\n  quorate settings watch links --from-revision 12"
    )]
    Watch(WatchArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum SchemaCommand {
    /// Show the schema of a section
    #[command(after_help = "Examples:\n  quorate settings schema get links")]
    Get(SectionArgs),
    /// Give a section a schema, which it must fit as it is
    #[command(
        after_help = "Examples:\n  quorate settings schema set links schema.json\n  quorate settings schema set links - < schema.yaml"
    )]
    Set(SchemaSetArgs),
    /// Remove the schema of a section; its settings stay
    #[command(
        visible_alias = "rm",
        after_help = "Examples:\n  quorate settings schema delete links"
    )]
    Delete(SchemaDeleteArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// The section; all sections otherwise
    section: Option<String>,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// The section
    section: String,
    /// The key
    key: String,
    /// As it was at this revision
    #[arg(long)]
    revision: Option<u64>,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The section
    section: String,
    /// The key
    key: String,
    /// The value: JSON, or else a text; `-` reads it from standard input
    #[arg(allow_hyphen_values = true)]
    value: String,
    /// Only if the setting is at this revision; 0 for a new one
    #[arg(long)]
    revision: Option<u64>,
    #[command(flatten)]
    once: OnceArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// The section
    section: String,
    /// The key; the whole section otherwise
    key: Option<String>,
    /// Only if the setting, or the section, is at this revision
    #[arg(long)]
    revision: Option<u64>,
    #[command(flatten)]
    once: OnceArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    /// The section
    section: String,
    /// The key
    key: String,
    /// Only what it was before this revision
    #[arg(long, value_name = "REVISION")]
    before: Option<u64>,
    /// How many versions to show
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=100))]
    limit: u64,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct SectionArgs {
    /// The section
    section: String,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct SchemaSetArgs {
    /// The section
    section: String,
    /// The file with the schema, JSON or YAML; `-` for standard input
    file: PathBuf,
    #[command(flatten)]
    once: OnceArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct SchemaDeleteArgs {
    /// The section
    section: String,
    #[command(flatten)]
    once: OnceArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The file, YAML or JSON; `-` for standard input
    file: PathBuf,
    /// The file holds the settings of this section alone
    #[arg(long)]
    section: Option<String>,
    /// Remove what the file does not name
    #[arg(long)]
    replace: bool,
    /// Only tell what would change
    #[arg(long)]
    dry_run: bool,
    /// Only if the section is at this revision
    #[arg(long, requires = "section")]
    revision: Option<u64>,
    #[command(flatten)]
    once: OnceArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// This section alone
    #[arg(long)]
    section: Option<String>,
    /// As it was at this revision
    #[arg(long)]
    revision: Option<u64>,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// The section; all otherwise
    section: Option<String>,
    /// The first revision to tell of; otherwise what is yet to come
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(u64).range(1..))]
    from_revision: Option<u64>,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn run(command: SettingsCommand) -> Result<(), CliError> {
    match command {
        SettingsCommand::List(args) => list(args).await,
        SettingsCommand::Get(args) => get(args).await,
        SettingsCommand::Set(args) => set(args).await,
        SettingsCommand::Delete(args) => delete(args).await,
        SettingsCommand::History(args) => history(args).await,
        SettingsCommand::Schema(SchemaCommand::Get(args)) => get_schema(args).await,
        SettingsCommand::Schema(SchemaCommand::Set(args)) => set_schema(args).await,
        SettingsCommand::Schema(SchemaCommand::Delete(args)) => delete_schema(args).await,
        SettingsCommand::Import(args) => import(args).await,
        SettingsCommand::Export(args) => export(args).await,
        SettingsCommand::Watch(args) => watch(args).await,
    }
}

fn cells<const COUNT: usize>(cells: [&str; COUNT]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

async fn list(args: ListArgs) -> Result<(), CliError> {
    let client = args.connect.client()?;
    let Some(section) = &args.section else {
        let answer = client.sections(Consistency::Linearizable).await?;
        if args.connect.format == Format::Json {
            return print_json(&answer);
        }
        let mut rows = vec![cells(["SECTION", "REVISION", "SETTINGS", "BYTES", "SCHEMA"])];
        rows.extend(answer.sections.iter().map(|info| {
            vec![
                info.section.clone(),
                info.mod_revision.to_string(),
                info.settings.to_string(),
                info.bytes.to_string(),
                if info.schema { "yes" } else { "no" }.to_owned(),
            ]
        }));
        return print(&table(&rows));
    };
    let answer = client.section(section, None, Consistency::Linearizable).await?;
    if args.connect.format == Format::Json {
        return print_json(&answer);
    }
    let mut rows = vec![cells(["KEY", "REVISION", "VERSION", "VALUE"])];
    rows.extend(answer.settings.iter().map(|setting| {
        vec![
            setting.key.clone(),
            setting.mod_revision.to_string(),
            setting.version.to_string(),
            shown(&setting.value),
        ]
    }));
    print(&table(&rows))
}

/// A value on one line, as long as people read.
fn shown(value: &Value) -> String {
    const CHARACTERS_MAX: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

async fn get(args: GetArgs) -> Result<(), CliError> {
    let client = args.connect.client()?;
    let setting = client
        .setting(&args.section, &args.key, args.revision, Consistency::Linearizable)
        .await?;
    match args.connect.format {
        Format::Json => print_json(&setting),
        Format::Table => print_json(&setting.setting.value),
    }
}

async fn set(args: SetArgs) -> Result<(), CliError> {
    let text = match args.value.as_str() {
        "-" => text_of(read_input()?)?,
        value => value.to_owned(),
    };
    let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    let client = args.once.client(&args.connect).await?;
    let changed = client
        .set_setting(&args.section, &args.key, &value, args.revision)
        .await?;
    show_changed(&changed, args.connect.format)
}

async fn delete(args: DeleteArgs) -> Result<(), CliError> {
    let client = args.once.client(&args.connect).await?;
    let changed = match &args.key {
        Some(key) => client.delete_setting(&args.section, key, args.revision).await?,
        None => client.delete_section(&args.section, args.revision).await?,
    };
    show_changed(&changed, args.connect.format)
}

fn show_changed(changed: &SettingsChanged, format: Format) -> Result<(), CliError> {
    match (format, changed) {
        (Format::Json, _) => print_json(changed),
        (
            Format::Table,
            SettingsChanged {
                written: 0,
                deleted: 0,
                revision,
            },
        ) => print(&format!("OK, nothing to change at revision {revision}\n")),
        (Format::Table, SettingsChanged { revision, .. }) => print(&format!("OK, revision {revision}\n")),
    }
}

async fn history(args: HistoryArgs) -> Result<(), CliError> {
    let client = args.connect.client()?;
    let limit = Some(args.limit);
    let history = client
        .setting_history(&args.section, &args.key, args.before, limit)
        .await?;
    if args.connect.format == Format::Json {
        return print_json(&history);
    }
    let mut rows = vec![cells(["REVISION", "VALUE"])];
    rows.extend(history.versions.iter().map(|version| {
        let value = match version.deleted {
            true => "(deleted)".to_owned(),
            false => shown(&version.value),
        };
        vec![version.revision.to_string(), value]
    }));
    print(&table(&rows))?;
    if let (true, Some(last)) = (history.more, history.versions.last()) {
        warn(&format!(
            "there are earlier versions; go on with --before {}",
            last.revision
        ));
    }
    Ok(())
}

async fn get_schema(args: SectionArgs) -> Result<(), CliError> {
    let client = args.connect.client()?;
    print_json(&client.schema(&args.section, Consistency::Linearizable).await?)
}

async fn set_schema(args: SchemaSetArgs) -> Result<(), CliError> {
    let schema = read_document(&args.file)?;
    let client = args.once.client(&args.connect).await?;
    let changed = client.set_schema(&args.section, &schema).await?;
    match args.connect.format {
        Format::Json => print_json(&changed),
        Format::Table => print(&format!("OK, revision {}\n", changed.revision)),
    }
}

async fn delete_schema(args: SchemaDeleteArgs) -> Result<(), CliError> {
    let client = args.once.client(&args.connect).await?;
    let changed = client.delete_schema(&args.section).await?;
    match args.connect.format {
        Format::Json => print_json(&changed),
        Format::Table => print(&format!("OK, revision {}\n", changed.revision)),
    }
}

fn text_of(bytes: Vec<u8>) -> Result<String, CliError> {
    String::from_utf8(bytes).map_err(|_| CliError::Other("the input is no UTF-8 text".to_owned()))
}

/// What a file says, in JSON if its name says so, and in YAML otherwise, which JSON almost always is as well.
fn read_document(file: &Path) -> Result<Value, CliError> {
    let bytes = if file.as_os_str() == "-" {
        read_input()?
    } else {
        std::fs::read(file).map_err(|error| CliError::io(format!("read {}", file.display()), error))?
    };
    let text = text_of(bytes)?;
    let is_json = file.extension().is_some_and(|extension| extension == "json");
    let wrong = |error: String| CliError::Other(format!("{}: {error}", file.display()));
    match serde_json::from_str(&text) {
        Ok(value) => Ok(value),
        Err(error) if is_json => Err(wrong(error.to_string())),
        Err(_) => from_yaml(&text).map_err(|error| wrong(format!("line {}: {}", error.line, error.message))),
    }
}

async fn import(args: ImportArgs) -> Result<(), CliError> {
    let document = read_document(&args.file)?;
    let wrong = |error: serde_json::Error| {
        CliError::Other(format!(
            "{} is not what an export prints: {error}",
            args.file.display()
        ))
    };
    let import = Import {
        replace: args.replace,
        dry_run: args.dry_run,
        expected_revision: args.revision,
    };
    let client = args.once.client(&args.connect).await?;
    let answer = match &args.section {
        Some(section) => {
            let settings: SectionDocument = serde_json::from_value(document).map_err(wrong)?;
            client.import_section(section, &settings, import).await?
        }
        None => {
            let settings: SettingsDocument = serde_json::from_value(document).map_err(wrong)?;
            client.import_settings(&settings, import).await?
        }
    };
    match args.connect.format {
        Format::Json => print_json(&answer),
        Format::Table => print(&imported(&answer)),
    }
}

fn imported(answer: &ImportAnswer) -> String {
    let mut text = String::new();
    if !answer.changes.is_empty() {
        let mut rows = vec![cells(["SECTION", "KEY", "CHANGE", "BEFORE", "AFTER"])];
        rows.extend(answer.changes.iter().map(|change| {
            let value = |value: &Value| match value {
                Value::Null => String::new(),
                value => shown(value),
            };
            vec![
                change.section.clone(),
                change.key.clone(),
                change.kind.as_str().to_owned(),
                value(&change.before),
                value(&change.after),
            ]
        }));
        text.push_str(&table(&rows));
    }
    let (written, deleted) = (answer.written, answer.deleted);
    text.push_str(&match answer.dry_run {
        true => format!("nothing changed; {written} would be written and {deleted} deleted\n"),
        false => format!(
            "OK, {written} written and {deleted} deleted, revision {}\n",
            answer.revision
        ),
    });
    text
}

async fn export(args: ExportArgs) -> Result<(), CliError> {
    let client = args.connect.client()?;
    let document = match &args.section {
        Some(section) => {
            let section = client
                .section(section, args.revision, Consistency::Linearizable)
                .await?;
            let settings = section.settings.into_iter();
            settings.map(|setting| (setting.key, setting.value)).collect()
        }
        None => {
            let sections = client.export_settings(args.revision).await?.into_iter();
            let whole =
                sections.map(|(name, settings)| (name, Value::Object(settings.into_iter().collect())));
            Value::Object(whole.collect())
        }
    };
    match args.connect.format {
        Format::Json => print_json(&document),
        Format::Table => print(&to_yaml(&document)),
    }
}

async fn watch(args: WatchArgs) -> Result<(), CliError> {
    // Whether anybody is there at all shall be known at once; a failover later on takes its time.
    args.connect.client()?.status().await?;
    let client = args.connect.builder()?.rounds_max(u32::MAX).build();
    let mut watch = client.watch_settings(args.section.as_deref(), args.from_revision);
    let mut begun = false;
    loop {
        match watch.next().await {
            Ok(Watched::Change(change)) => show_change(&change, args.connect.format)?,
            Ok(Watched::Progress { .. }) => begun = true,
            Err(error) if begun && error.is_temporary() => {
                warn(&format!("{error}; looking for a node that goes on"));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn show_change(change: &SettingsChange, format: Format) -> Result<(), CliError> {
    if format == Format::Json {
        let line = serde_json::to_string(change);
        let line = line.map_err(|error| CliError::Other(format!("the change cannot be written: {error}")))?;
        return print(&format!("{line}\n"));
    }
    let lines = change.events.iter().map(|event| line(change.revision, event));
    print(&lines.collect::<String>())
}

fn line(revision: u64, event: &SettingsNews) -> String {
    match event {
        SettingsNews::Set { section, key, value } => {
            format!("{revision}  set      {section}/{key}  {}\n", shown(value))
        }
        SettingsNews::Deleted { section, key } => format!("{revision}  deleted  {section}/{key}\n"),
        SettingsNews::SchemaSet { section, .. } => format!("{revision}  schema   {section}  is new\n"),
        SettingsNews::SchemaDeleted { section } => format!("{revision}  schema   {section}  is gone\n"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_becomes_of_a_setting_is_one_line() {
        let set = SettingsNews::Set {
            section: "links".to_owned(),
            key: "docs".to_owned(),
            value: json!({"a": 1}),
        };
        assert_eq!(line(7, &set), "7  set      links/docs  {\"a\":1}\n");
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let text = shown(&json!("ä".repeat(100)));
        assert_eq!(text.chars().count(), 63);
    }
}
