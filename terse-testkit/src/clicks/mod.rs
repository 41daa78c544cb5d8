//! What tests of the click log share: [`ClickModel`], which says what the read model must be for any log, and
//! [`ClickStore`], a read model that fails, forgets and stops where a seed says.

mod model;
mod store;

pub use model::{ClickModel, ModelClick, ModelPart};
pub use store::{ClickStore, ClickStoreKind, ClickWriter, Mishaps};
