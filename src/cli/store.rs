//! `scale-lnd store`: moves a deployment from one Store to another.

use super::Failure;
use crate::deployment::{self, CopyError};
use crate::store::Store;
use crate::store::firestore::{FirestoreOptions, FirestoreStore};
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use clap::Subcommand;
use std::path::PathBuf;
use std::sync::Arc;

/// Verbs about Stores.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Move a deployment: copy every document, read all of it back and compare, and let no master start on the old store any
    /// more. End all masters first. After an interruption type it again
    Copy(CopyArgs),
}

/// From where to where.
#[derive(Debug, Clone, clap::Args)]
pub struct CopyArgs {
    /// The store there is: sqlite:PATH or firestore:PROJECT/DATABASE
    #[arg(long, value_name = "STORE", value_parser = place)]
    from: Place,
    /// The store to be: the same forms; nothing of a deployment may be in it
    #[arg(long, value_name = "STORE", value_parser = place)]
    to: Place,
    /// Google's credentials for Firestore, as store.credentials_file
    #[arg(long, value_name = "PATH")]
    credentials_file: Option<PathBuf>,
    /// Where Firestore is, as store.api_url
    #[arg(long, value_name = "URL")]
    api_url: Option<String>,
    /// Go back to the old store after an interrupted copy; what was copied already stays where it is, useless
    #[arg(long)]
    undo: bool,
}

#[derive(Debug, Clone)]
enum Place {
    Sqlite(PathBuf),
    Firestore { project: String, database: String },
}

fn place(text: &str) -> Result<Place, String> {
    let forms = || "must be sqlite:PATH or firestore:PROJECT/DATABASE".to_owned();
    match text.split_once(':') {
        Some(("sqlite", path)) if !path.is_empty() => Ok(Place::Sqlite(PathBuf::from(path))),
        Some(("firestore", name)) if !name.is_empty() => {
            let (project, database) = name.split_once('/').unwrap_or((name, "(default)"));
            let fits = |part: &str| !part.is_empty() && !part.contains('/');
            if !fits(project) || !fits(database) {
                return Err(forms());
            }
            Ok(Place::Firestore { project: project.to_owned(), database: database.to_owned() })
        }
        _ => Err(forms()),
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Firestore { project, database } => write!(f, "firestore:{project}/{database}"),
        }
    }
}

/// Runs the verb.
pub async fn run(command: StoreCommand) -> Result<(), Failure> {
    let StoreCommand::Copy(args) = command;
    if let Place::Sqlite(path) = &args.from
        && !path.exists()
    {
        return Err(Failure::usage(format!("--from: there is no file {}", path.display())));
    }
    let (from, to) = (open(&args.from, &args).await?, open(&args.to, &args).await?);
    if args.undo {
        deployment::undo_copy(&*from, &*to).await?;
        println!("undone: {} is the deployment's store again; copy to another, empty one the next time", args.from);
        return Ok(());
    }
    match deployment::copy(&*from, &*to, &args.to.to_string()).await {
        Ok(Some(copied)) => println!(
            "{} documents copied, {} found copied before, all read back and equal; masters may start on {}",
            copied.written, copied.found, args.to
        ),
        Ok(None) => println!("the copy to {} was complete before; nothing was done", args.to),
        Err(error @ (CopyError::Store(_) | CopyError::Different(_))) => {
            eprintln!("the copy is not complete, and no master starts on either store: type it again, or --undo");
            return Err(error.into());
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

async fn open(place: &Place, args: &CopyArgs) -> Result<Arc<dyn Store>, Failure> {
    Ok(match place {
        Place::Sqlite(path) => Arc::new(SqliteStore::open(path, SqliteOptions::default()).await?),
        Place::Firestore { project, database } => {
            let options = FirestoreOptions {
                database: database.clone(),
                credentials_file: args.credentials_file.clone(),
                api_url: args.api_url.clone(),
                ..FirestoreOptions::new(project.clone())
            };
            Arc::new(FirestoreStore::open(options).await?)
        }
    })
}
