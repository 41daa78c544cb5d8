//! `GET /` and `POST /`: a form that shortens. It needs no JavaScript; with it,
//! the result has a copy button.
//!
//! The form takes requests from its own page only: the browser must say so
//! with `Sec-Fetch-Site` (`same-origin`, or `none` for a user's own doing), or,
//! where it doesn't send that, with an `Origin` equal to the host that was
//! asked or to the public URL. A request that says neither is refused with 403;
//! programs have the API.
//!
//! Each rendered form holds a token, and the hash of the whole body is the
//! idempotency key: sending one form twice, as a reload does, gives one link.

use std::fmt::Write;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use terse_core::access::Caller;
use terse_core::shorten::{Draft, Idempotency};
use terse_core::time::random_bytes;
use terse_core::{Link, Tags};

use crate::api::{body as api_body, query};
use crate::html::{self, Escaped, Nonce};
use crate::problem::{FieldFault, Kind, Problem};
use crate::request_id::hex;
use crate::{Access, State, auth, body, book, host, limits};

const FORM: &str = "application/x-www-form-urlencoded";

/// Copies the short link. Where the browser offers no clipboard (plain HTTP), it selects it and copies the old way.
const SCRIPT: &str = "const b=document.querySelector('[data-copy]');if(b){b.hidden=false;b.onclick=async()=>{\
    const i=document.getElementById('short');i.select();try{await navigator.clipboard.writeText(i.value)}\
    catch{document.execCommand('copy')}b.textContent='Copied';setTimeout(()=>b.textContent='Copy',2000)}}";

/// What the user typed, to be shown again when it was refused. The key is never shown.
#[derive(Debug, Default, PartialEq, Eq)]
struct Input {
    url: String,
    alias: String,
    key: String,
}

/// `GET /`.
pub(crate) async fn show(state: web::Data<State>) -> HttpResponse {
    let book = link_to_book(&state).await;
    render(&state, StatusCode::OK, &Input::default(), "", book)
}

/// `POST /`.
pub(crate) async fn shorten(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    let mut input = Input::default();
    let book = link_to_book(&state).await;
    match try_shorten(&request, &state, &mut input).await {
        Ok(link) => {
            let made = result(&link, &state);
            let mut response = render(&state, StatusCode::CREATED, &Input::default(), &made, book);
            if let Ok(location) = HeaderValue::try_from(format!("/api/v1/links/{}", link.code)) {
                response.headers_mut().insert(header::LOCATION, location);
            }
            response
        }
        Err(problem) => refused(&state, &input, &problem, book),
    }
}

async fn try_shorten(request: &HttpRequest, state: &State, input: &mut Input) -> Result<Link, Problem> {
    require_own_page(request, state)?;
    require_form(request)?;
    let bytes = body::read(request, state, state.settings.bounds.body_bytes).await?;
    *input = Input::read(&bytes)?;
    let caller = caller(request, state, &input.key);
    if let Some(refusal) = limits::creates(request, state, caller.as_ref().ok(), 1).await.refusal {
        return Err(refusal);
    }
    let caller = caller?;
    let draft = input.draft(state)?;
    let hash: [u8; 32] = Sha256::digest(&bytes).into();
    let once = Idempotency { key: format!("form-{}", hex(hash)), body_hash: hash };
    Ok(state.shortener.create(&caller, &draft, Some(&once)).await?)
}

impl Input {
    /// Reads the form's fields; unknown ones are ignored, of a repeated one the last counts.
    fn read(body: &Bytes) -> Result<Self, Problem> {
        let text = std::str::from_utf8(body).map_err(|_| malformed())?;
        let mut input = Self::default();
        for (name, value) in query::pairs(text).map_err(|_| malformed())? {
            let value = value.trim_matches([' ', '\t', '\r', '\n']).to_owned();
            match name.as_str() {
                "url" => input.url = value,
                "alias" => input.alias = value,
                "key" => input.key = value,
                _ => {}
            }
        }
        Ok(input)
    }

    /// What the link shall be, or all faults.
    fn draft(&self, state: &State) -> Result<Draft, Problem> {
        let mut faults = Vec::new();
        let target = match self.url.as_str() {
            "" => Err(("required", "is required".to_owned())),
            url => api_body::target(url, &state.policy),
        };
        let alias = match self.alias.as_str() {
            "" => Ok(None),
            alias => api_body::alias(alias).map(Some),
        };
        if let Err((code, detail)) = &alias {
            faults.push(FieldFault::new("alias", code, detail.clone()));
        }
        match (target, alias) {
            (Ok(target), Ok(alias)) => {
                Ok(Draft { target, alias, title: None, tags: Tags::default(), expires_at: None, valid_from: None })
            }
            (target, _) => {
                if let Err((code, detail)) = target {
                    faults.insert(0, FieldFault::new("url", code, detail));
                }
                Err(Problem::invalid(faults))
            }
        }
    }
}

fn malformed() -> Problem {
    Problem::invalid_field("body", "malformed", "is no list of encoded fields in UTF-8")
}

/// The holder of the key in the form, who must be allowed to create.
fn caller(request: &HttpRequest, state: &State, key: &str) -> Result<Caller, Problem> {
    let caller = auth::holder(key, state, state.clock.now())?;
    auth::remember(request, &caller);
    auth::may_write(caller)
}

/// The fence against forms on foreign sites.
fn require_own_page(request: &HttpRequest, state: &State) -> Result<(), Problem> {
    let headers = request.headers();
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let own = match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            let asked = text("host").filter(|host| !host.is_empty());
            let bare = origin.split_once("://").map(|(_, host)| host);
            bare.is_some_and(|bare| asked.is_some_and(|host| host.eq_ignore_ascii_case(bare)))
                || host::public_origin(&state.settings).is_some_and(|public| public.eq_ignore_ascii_case(origin))
        }
        (None, None) => false,
    };
    if own {
        return Ok(());
    }
    Err(Problem::new(Kind::CrossSite, "the form was not sent from this page; programs can use the API"))
}

fn require_form(request: &HttpRequest) -> Result<(), Problem> {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).map(str::trim);
    if essence.is_some_and(|essence| essence.eq_ignore_ascii_case(FORM)) {
        return Ok(());
    }
    Err(Problem::new(Kind::UnsupportedMediaType, format!("the form is sent as {FORM}")))
}

/// The page with a problem told above the form, under the problem's status and headers.
fn refused(state: &State, input: &Input, problem: &Problem, book: &str) -> HttpResponse {
    let mut note = format!("<div class=\"note bad\" role=\"alert\"><strong>{}</strong>", Escaped(problem.kind.title()));
    if problem.errors.is_empty() {
        let _ = write!(note, "<p>{}</p>", Escaped(&problem.detail));
    } else {
        note.push_str("<ul>");
        for fault in &problem.errors {
            let _ = write!(note, "<li>{} {}</li>", Escaped(label(&fault.field)), Escaped(&fault.detail));
        }
        note.push_str("</ul>");
    }
    note.push_str("</div>");
    let nonce = Nonce::new(&*state.entropy);
    let text = form_page(state, &nonce, input, &note, &problem.errors, book);
    let mut response = problem.response_with(html::CONTENT_TYPE, text.into_bytes());
    html::confine(&mut response, &nonce);
    response
}

fn label(field: &str) -> &str {
    match field {
        "url" => "The address",
        "alias" => "The alias",
        other => other,
    }
}

fn render(state: &State, status: StatusCode, input: &Input, note: &str, book: &str) -> HttpResponse {
    let nonce = Nonce::new(&*state.entropy);
    let text = form_page(state, &nonce, input, note, &[], book);
    let mut response = HttpResponse::build(status).content_type(html::CONTENT_TYPE).body(text);
    html::confine(&mut response, &nonce);
    response
}

/// The short link, ready to be copied, and where it leads.
fn result(link: &Link, state: &State) -> String {
    let short = format!("{}/{}", state.settings.public_url, link.code);
    let (short, target) = (Escaped(&short), Escaped(link.target.as_str()));
    format!(
        "<section class=\"note\" aria-label=\"Your short link\"><strong>Your short link</strong>\
         <div class=\"row\"><input id=\"short\" value=\"{short}\" readonly aria-label=\"Short link\">\
         <button type=\"button\" data-copy hidden>Copy</button></div>\
         <p class=\"soft cut\">leads to <a href=\"{target}\" rel=\"noreferrer nofollow\">{target}</a></p>\
         <p><a href=\"{short}\">Try it</a></p></section>"
    )
}

/// A link to the book, as long as it is there.
async fn link_to_book(state: &State) -> &'static str {
    if book::is_there(state).await { "<a href=\"/docs/\">Book</a>" } else { "" }
}

fn form_page(state: &State, nonce: &Nonce, input: &Input, note: &str, faults: &[FieldFault], book: &str) -> String {
    let invalid = |field: &str| {
        if faults.iter().any(|fault| fault.field == field) { " aria-invalid=\"true\"" } else { "" }
    };
    let key = match state.access {
        Access::Open => "",
        Access::Keys(_) => {
            "<label>API key<input name=\"key\" type=\"password\" required autocomplete=\"current-password\" \
             placeholder=\"trs_…\"></label>"
        }
    };
    let main = format!(
        "<main><h1><a href=\"/\">terse<span>.</span></a></h1>\
         <p class=\"soft\">Paste a long address, get a short one.</p>\
         {note}<form method=\"post\" action=\"/\"><input type=\"hidden\" name=\"token\" value=\"{token}\">\
         <label>Long address<input name=\"url\" type=\"text\" inputmode=\"url\" required maxlength=\"8192\" \
         placeholder=\"https://example.com/a/long/path\" autocomplete=\"off\" autocapitalize=\"none\" \
         spellcheck=\"false\" value=\"{url}\"{bad_url}></label>\
         <label><span>Alias <small>optional</small></span><input name=\"alias\" maxlength=\"64\" \
         placeholder=\"my-link\" autocomplete=\"off\" autocapitalize=\"none\" spellcheck=\"false\" \
         value=\"{alias}\"{bad_alias}></label>{key}<button>Shorten</button></form></main>\
         <footer>{book}<a href=\"/api/docs/\">API</a><a href=\"/health\">Health</a></footer>",
        token = hex(random_bytes::<16>(&*state.entropy)),
        url = Escaped(&input.url),
        bad_url = invalid("url"),
        alias = Escaped(&input.alias),
        bad_alias = invalid("alias"),
    );
    html::page(nonce, "terse — a URL shortener", &main, SCRIPT)
}
