//! `/api/v1/links/batch`: create up to 1,000 links in one request, so many of all batches at once.

use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::{StreamExt, stream};
use serde::Serialize;
use terse_core::access::Caller;
use terse_core::metrics::Shed;
use terse_core::ports::{StoreError, StoreErrorKind};
use terse_core::{Link, shorten::ServiceError};
use utoipa::ToSchema;
use utoipa::openapi::Ref;
use utoipa::openapi::schema::{AnyOfBuilder, Array, ArrayBuilder, ObjectBuilder, SchemaType};

use super::links::IDEMPOTENCY_KEY;
use super::places::{AT_ONCE, Places};
use super::view::LinkView;
use super::{body, json, link, require_json};
use crate::body::read_while;
use crate::json::{Fields, Json};
use crate::layer::RequestId;
use crate::limits::Creates;
use crate::problem::{Problem, ProblemBody};
use crate::{State, auth, limits};

/// Most links in one batch; more: 422.
pub(crate) const MAX_ITEMS: usize = 1_000;

/// What became of one item.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = BatchItem)]
enum ItemView<'a> {
    /// It was created.
    Created {
        #[schema(minimum = 201, maximum = 201, example = 201)]
        status: u16,
        link: LinkView<'a>,
    },
    /// It was not; the others are not affected.
    Failed {
        #[schema(minimum = 400, maximum = 599, example = 409)]
        status: u16,
        error: ProblemBody<'a>,
    },
}

/// What became of a batch, item by item, in the order of the request.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchResult)]
pub(crate) struct BatchView<'a> {
    items: Vec<ItemView<'a>>,
}

/// Links to create.
#[derive(ToSchema)]
#[schema(as = Batch)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "it describes the API; items are read one by one")]
pub(crate) struct BatchBody {
    #[schema(schema_with = batch_items)]
    items: Vec<Json>,
}

/// A list of create bodies. Others are taken too: they fail alone, in their place.
fn batch_items() -> Array {
    let create = Ref::from_schema_name("Create");
    let anything = ObjectBuilder::new().schema_type(SchemaType::AnyValue).description(Some("fails alone with 422"));
    let item = AnyOfBuilder::new().item(create).item(anything);
    ArrayBuilder::new().items(item).min_items(Some(1)).max_items(Some(MAX_ITEMS)).build()
}

/// Creates up to 1,000 links. Each item succeeds or fails alone; the answer is in the order of the request.
///
/// Each draws from the limit of creates; those that find it used up fail with 429 in their place.
#[utoipa::path(
    post, path = "/api/v1/links/batch", operation_id = "create_links", tag = "links",
    request_body(content = BatchBody),
    responses((status = 200, description = "What became of each item", body = BatchView))
)]
pub(crate) async fn create(
    request: HttpRequest,
    state: web::Data<State>,
    places: web::Data<Places>,
) -> Result<HttpResponse, Problem> {
    let caller = auth::writer(&request, &state)?;
    if request.headers().contains_key(IDEMPOTENCY_KEY) {
        let detail = "is not taken on a batch; give the items aliases, or create them one by one";
        return Err(Problem::invalid_field(IDEMPOTENCY_KEY, "not_allowed", detail));
    }
    require_json(&request)?;
    let mut room = places.room();
    let is_room = |more| {
        let grown = room.grow(more);
        if !grown {
            state.metrics.shed(Shed::Create).inc();
        }
        grown
    };
    let bytes = read_while(&request, &state, state.settings.bounds.batch_bytes, is_room).await?;
    let items = items(Json::parse(&bytes)?)?;
    drop(bytes);
    let drawn = limits::creates(&request, &state, Some(&caller), items.len()).await;
    let making = Making { caller: &caller, state: &state, places: &places, drawn: &drawn };
    let creates = items.into_iter().enumerate().map(|(index, item)| making.create(index, item));
    let results: Vec<_> = stream::iter(creates).buffered(AT_ONCE).collect().await;
    let extensions = actix_web::HttpMessage::extensions(&request);
    let id = extensions.get::<RequestId>().map(RequestId::as_str);
    let items = results.iter().map(|result| view(result, &state, id)).collect();
    json(StatusCode::OK, &BatchView { items })
}

/// Other methods mean the link whose alias is `batch`; without one, only POST is known here.
pub(crate) async fn alias(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    let caller = auth::caller(&request, &state)?;
    match state.shortener.read(&caller, &link::code(&request)?).await {
        Err(ServiceError::NotFound) => return Err(Problem::method_not_allowed("POST")),
        read => read?,
    };
    match *request.method() {
        Method::GET | Method::HEAD => link::read(request, state).await,
        Method::PATCH => link::edit(request, state).await,
        Method::DELETE => link::delete(request, state).await,
        _ => Err(Problem::method_not_allowed("GET, HEAD, POST, PATCH, DELETE")),
    }
}

/// What the creates of one batch need.
struct Making<'a> {
    caller: &'a Caller,
    state: &'a State,
    places: &'a Places,
    drawn: &'a Creates,
}

impl Making<'_> {
    /// Creates the link at `index`, unless those before it have used the limit up, or too many wait for places.
    async fn create(&self, index: usize, item: Json) -> Result<Link, Problem> {
        if let Some(refusal) = self.drawn.refusal.as_ref().filter(|_| index >= self.drawn.granted) {
            return Err(refusal.clone());
        }
        let draft = body::draft(item, "item", &self.state.policy)?;
        self.drawn.turn(index).await;
        let Some(_place) = self.places.enter().await else {
            self.state.metrics.shed(Shed::Create).inc();
            return Err(Problem::store(&StoreError::new(StoreErrorKind::Overloaded, "too many items of batches wait")));
        };
        let created: Result<Link, ServiceError> = self.state.shortener.create(self.caller, &draft, None).await;
        Ok(created?)
    }
}

fn view<'a>(result: &'a Result<Link, Problem>, state: &State, request_id: Option<&'a str>) -> ItemView<'a> {
    match result {
        Ok(link) => ItemView::Created { status: 201, link: LinkView::of(link, &state.settings.public_url) },
        Err(problem) => ItemView::Failed { status: problem.kind.status().as_u16(), error: problem.body(request_id) },
    }
}

/// The items of the body.
fn items(json: Json) -> Result<Vec<Json>, Problem> {
    let mut fields = Fields::of(json, &["items"], "body")?;
    let items = match fields.take("items") {
        Some(Json::List(items)) => {
            if items.is_empty() || items.len() > MAX_ITEMS {
                let detail = format!("must hold 1 to {MAX_ITEMS} items, not {}", items.len());
                fields.fault("items", "out_of_bounds", detail);
            }
            Some(items)
        }
        Some(_) => {
            fields.fault("items", "wrong_type", "must be a list");
            None
        }
        None => {
            fields.fault("items", "required", "is required");
            None
        }
    };
    fields.finish(items)
}
