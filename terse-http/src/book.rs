//! The book at `/docs/`: the files of one directory, as they are at that moment, and nothing that is not in it.
//!
//! Where a path leads, links included, the file system says; it must be a plain file inside of the directory. Names
//! with a leading dot are never served. A file is read in pieces of [`PIECE`] bytes by threads that may block, so that
//! no redirect of the worker waits for a disk, and a client that reads slowly holds one piece.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Component, Path};
use std::time::UNIX_EPOCH;

use actix_web::body::SizedStream;
use actix_web::http::header::{self, ETag, EntityTag, Header, HeaderValue, IfNoneMatch};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::{Stream, stream};
use rustix::io::Errno;

use crate::State;
use crate::problem::{Kind, Problem};

/// Most bytes of a file that are held for one answer.
const PIECE: u64 = 64 * 1024;
/// What a path that ends with a slash leads to.
const INDEX: &str = "index.html";

/// mdBook's pages have scripts within them, and diagrams have styles. The files are the operator's, nothing in them is
/// a client's; so what they bring runs, and nothing from elsewhere does. The frame is their table of contents for
/// those without scripts.
const POLICY: &str = "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; \
                      img-src 'self' data:; font-src 'self'; connect-src 'self'; frame-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'self'";

/// A file that may be served.
#[derive(Debug)]
struct Found {
    file: File,
    bytes: u64,
    tag: EntityTag,
    content_type: &'static str,
}

/// Whether there is a book now: it may be built, moved or removed while the server runs.
pub(crate) async fn is_there(state: &State) -> bool {
    let Some(index) = state.settings.docs_dir.as_ref().map(|directory| directory.join(INDEX)) else { return false };
    // Without threads that may block, as when the server ends, no page of it could be read either.
    web::block(move || index.is_file()).await.unwrap_or(false)
}

/// `GET /docs`: the trailing slash is what makes relative paths work.
pub(crate) async fn with_slash() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((header::LOCATION, "/docs/")).finish()
}

/// `GET /docs/{file}`.
pub(crate) async fn file(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    let directory = state.settings.docs_dir.clone().ok_or_else(Problem::no_such_path)?;
    let asked = request.match_info().query("file").to_owned();
    let found = match web::block(move || find(&directory, &asked)).await {
        Ok(Ok(found)) => found.ok_or_else(Problem::no_such_path)?,
        Ok(Err(error)) => return Err(unreadable(&error)),
        Err(error) => return Err(unreadable(&io::Error::other(error))),
    };
    let known = is_known(&request, &found.tag);
    let mut response = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response.insert_header((header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)));
    // A book that was built anew shows at once; asking whether it was costs next to nothing.
    response.insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-cache")));
    response.insert_header(ETag(found.tag));
    if known {
        return Ok(response.finish());
    }
    response.content_type(found.content_type);
    Ok(response.body(SizedStream::new(found.bytes, pieces(found.file, found.bytes))))
}

fn unreadable(error: &io::Error) -> Problem {
    tracing::warn!(%error, "a file of the book can't be read");
    Problem::new(Kind::Internal, "the file can't be read")
}

/// Whether the client has the file with this tag already.
fn is_known(request: &HttpRequest, tag: &EntityTag) -> bool {
    match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|known| known.weak_eq(tag)),
        Err(_) => false,
    }
}

/// The file that `asked` leads to in `directory`; `None` = there is none that may be served.
fn find(directory: &Path, asked: &str) -> io::Result<Option<Found>> {
    let relative = Path::new(asked);
    let is_named = |part: Component<'_>| match part {
        Component::Normal(name) => !name.as_encoded_bytes().starts_with(b"."),
        _ => false,
    };
    if !relative.components().all(is_named) {
        return Ok(None);
    }
    let mut path = directory.join(relative);
    if asked.is_empty() || asked.ends_with('/') {
        path.push(INDEX);
    }
    match open(directory, &path) {
        Ok(found) => Ok(found),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn open(directory: &Path, path: &Path) -> io::Result<Option<Found>> {
    let (directory, path) = (directory.canonicalize()?, path.canonicalize()?);
    // A pipe would be waited for, so what it is comes before opening it.
    if !path.starts_with(&directory) || !fs::metadata(&path)?.is_file() {
        return Ok(None);
    }
    let file = File::open(&path)?;
    let metadata = file.metadata()?;
    let changed = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let tag = EntityTag::new_weak(format!("{changed:x}-{:x}", metadata.len()));
    Ok(Some(Found { file, bytes: metadata.len(), tag, content_type: content_type(&path) }))
}

/// Whether there is nothing to be served, rather than something that can't be.
fn is_absence(error: &io::Error) -> bool {
    let told = Errno::from_io_error(error);
    let absent = matches!(told, Some(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP));
    // A name with a NUL never reaches the system.
    absent || error.kind() == ErrorKind::InvalidInput
}

/// By the name's ending: browsers are told not to guess.
fn content_type(path: &Path) -> &'static str {
    match path.extension().and_then(|ending| ending.to_str()).unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "toml" | "txt" | "md" => "text/plain; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    }
}

/// The bytes of `file`, which has so many. One that has become shorter since ends in an error, and so the connection.
fn pieces(file: File, bytes: u64) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((file, bytes), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let read = web::block(move || -> io::Result<(File, Vec<u8>)> {
            let mut piece = vec![0; usize::try_from(left.min(PIECE)).map_err(io::Error::other)?];
            file.read_exact(&mut piece)?;
            Ok((file, piece))
        });
        let (file, piece) = read.await.map_err(io::Error::other)??;
        let left = left - piece.len() as u64;
        Ok(Some((Bytes::from(piece), (file, left))))
    })
}
