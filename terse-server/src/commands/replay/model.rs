//! Read models of a replay: the one that is built, and the deployment's that it is compared with.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use terse_core::ports::clicks::ReadModel;
use terse_store::{CqlReadModel, SqliteReadModel, SqliteReadModelConfig};

use crate::clicks;
use crate::config::Config;
use crate::config::address::CqlAddress;
use crate::config::clicks::BusConfig;
use crate::exit::{Exit, StartError};
use crate::world::World;

/// What follows the name of the fresh read model in that of the copy of the deployment's.
const COPY_SUFFIX: &str = ".compared";

/// Where the read model is to be built.
pub(super) enum Target {
    /// A file that isn't there, or is empty.
    File(PathBuf),
    /// A keyspace in which nothing was counted.
    Keyspace(CqlAddress),
}

impl Target {
    /// Reads `into`. Nothing is made.
    ///
    /// # Errors
    /// [`StartError`] when it can't be built into.
    pub(super) fn parse(config: &Config, into: &str) -> Result<Self, StartError> {
        if into.starts_with("cql:") {
            let address = CqlAddress::parse(into);
            let address = address.map_err(|fault| StartError::config(format_args!("--into: {fault}")))?;
            if config.clicks.bus == BusConfig::Local {
                return Err(StartError::config(
                    "--into: a keyspace needs a message broker (TERSE_BUS): journals on this machine go into a SQLite file",
                ));
            }
            return Ok(Self::Keyspace(address));
        }
        let path = PathBuf::from(into);
        match std::fs::metadata(&path) {
            Ok(found) if found.is_file() && found.len() == 0 => Ok(Self::File(path)),
            Ok(_) => {
                Err(StartError::config(format_args!("--into: {into} is there already, and replay builds only anew")))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::File(path)),
            Err(error) => Err(StartError::new(Exit::CannotCreate, format_args!("--into: {into}: {error}"))),
        }
    }

    /// Opens or connects it.
    ///
    /// # Errors
    /// [`StartError`] when it can't be, or something was counted in it.
    pub(super) async fn open(&self) -> Result<Opened, StartError> {
        match self {
            Self::File(path) => open(path).map(Opened::Sqlite),
            Self::Keyspace(address) => {
                let model = connect(address).await?;
                let failed = |error| clicks::failed(&error);
                let is_used = !model.checkpoints().await.map_err(failed)?.is_empty()
                    || !model.scan(None, 1).await.map_err(failed)?.is_empty();
                if is_used {
                    return Err(StartError::config(format_args!(
                        "--into: {self} holds statistics already, and replay builds only anew"
                    )));
                }
                Ok(Opened::Cql(model))
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(out),
            // Without credentials.
            Self::Keyspace(address) => address.url.fmt(out),
        }
    }
}

/// A read model that is there.
pub(super) enum Opened {
    /// In a file.
    Sqlite(Arc<SqliteReadModel>),
    /// In a keyspace.
    Cql(Arc<CqlReadModel>),
}

impl Opened {
    /// For projecting and comparing.
    pub(super) fn read_model(&self) -> Arc<dyn ReadModel> {
        match self {
            Self::Sqlite(model) => Arc::clone(model) as Arc<dyn ReadModel>,
            Self::Cql(model) => Arc::clone(model) as Arc<dyn ReadModel>,
        }
    }

    /// Closes it, if it is a file.
    pub(super) fn close(&self) {
        if let Self::Sqlite(model) = self {
            model.close();
        }
    }
}

/// Opens a read model in a file.
pub(super) fn open(path: &Path) -> Result<Arc<SqliteReadModel>, StartError> {
    SqliteReadModel::open(SqliteReadModelConfig::new(path)).map_err(|error| clicks::failed(&error))
}

/// Connects a read model in a keyspace.
pub(super) async fn connect(address: &CqlAddress) -> Result<Arc<CqlReadModel>, StartError> {
    let world = World::real();
    let model = CqlReadModel::new(clicks::cql_config(address), world.clock, world.entropy);
    model.connect_once().await.map_err(|error| clicks::failed(&error))?;
    Ok(model)
}

/// A copy of the deployment's read model, as it was at one moment; it is gone when this is dropped.
pub(super) struct Copy {
    /// Where it is.
    pub(super) path: PathBuf,
}

impl Copy {
    /// Copies the deployment's, beside the fresh read model or in the data directory.
    pub(super) fn of(config: &Config, into: &Target) -> Result<Self, StartError> {
        let from = clicks::stats_file(config);
        if !from.exists() {
            let text = format!("there is no read model to compare with: {} is missing", from.display());
            return Err(StartError::config(text));
        }
        let mut path = match into {
            Target::File(path) => path.as_os_str().to_owned(),
            Target::Keyspace(_) => from.as_os_str().to_owned(),
        };
        path.push(COPY_SUFFIX);
        let path = PathBuf::from(path);
        if path.exists() {
            return Err(StartError::config(format_args!("{} is in the way; remove it", path.display())));
        }
        let copy = Self { path };
        SqliteReadModel::copy(&from, &copy.path).map_err(|error| clicks::failed(&error))?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm"] {
            let mut path = self.path.as_os_str().to_owned();
            path.push(suffix);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %Path::new(&path).display(), %error, "a copy was not removed");
                }
                _ => {}
            }
        }
    }
}
