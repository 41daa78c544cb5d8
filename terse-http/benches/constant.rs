//! What actix-web costs by itself: a server that answers every request with the
//! same 302, by a handler that does nothing else. `cargo xtask bench redirect`
//! builds it with the server's profile and allocator, and measures it beside terse.
//!
//! Arguments: where to listen, where to redirect to. It runs until it is ended.
#![allow(missing_docs)]

use std::error::Error;
use std::net::SocketAddr;

use actix_web::http::header::{self, HeaderValue};
use actix_web::{App, HttpResponse, HttpServer, web};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

async fn redirect(target: web::Data<HeaderValue>) -> HttpResponse {
    let mut response = HttpResponse::Found();
    response.insert_header((header::LOCATION, target.get_ref().clone()));
    response.insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-store")));
    response.finish()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(target)) = (arguments.next(), arguments.next()) else {
        return Err("two arguments: where to listen, where to redirect to".into());
    };
    let listen: SocketAddr = listen.parse()?;
    let target = web::Data::new(HeaderValue::try_from(target)?);
    actix_web::rt::System::new().block_on(async move {
        // The handler is in place of terse's whole tree of routes: no path is looked at.
        let app = move || App::new().app_data(target.clone()).default_service(web::to(redirect));
        HttpServer::new(app).workers(1).bind(listen)?.run().await
    })?;
    Ok(())
}
