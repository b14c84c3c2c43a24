//! The way of a request, as two pure functions with a wait between: [`Api::receive`] answers
//! at once or says what to ask, [`answer`] turns what came back into the response.
//!
//! Invariants: nothing is asked of the desk before the application and its secret are known;
//! every API response, refusal or not, is JSON with CORS headers.
//!
//! Not here: waiting.

use std::cell::RefCell;
use std::time::Instant;

use serde::Serialize;
use shards::command::{Answer, Command};

use crate::auth::{Admin, Apps, Door};
use crate::demo;
use crate::desk::NodeInfo;
use crate::problem::Problem;
use crate::rate::Rates;
use crate::realtime::{calls, render};
use crate::request::Request;
use crate::response::Response;
use crate::route::{self, Endpoint, Route};
use crate::tally::Kind;

/// What a shard's HTTP side knows. One per shard.
#[derive(Debug)]
pub struct Api {
    apps: Apps,
    admin: Admin,
    rates: RefCell<Rates>,
}

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Respond(Response),
    Ask(Command),
    /// Show what the node has counted.
    Measure,
    /// Show what it knows of its cluster.
    Survey,
}

impl Api {
    pub fn new(apps: Apps, admin: Admin) -> Self {
        Self { apps, admin, rates: RefCell::new(Rates::new()) }
    }

    pub fn receive(
        &self,
        request: &Request,
        door: Door,
        node: impl FnOnce() -> NodeInfo,
        now: Instant,
    ) -> (Kind, Step) {
        match route::route(request.method, &request.target) {
            Ok(route) => (Kind::of(&route), self.step(route, request, door, node, now)),
            Err(problem @ Problem::Missing(_)) => {
                (Kind::Missing, Step::Respond(problem.response()))
            }
            Err(problem) => (Kind::Unknown, Step::Respond(problem.response())),
        }
    }

    fn step(
        &self,
        route: Route<'_>,
        request: &Request,
        door: Door,
        node: impl FnOnce() -> NodeInfo,
        now: Instant,
    ) -> Step {
        let authorization = request.authorization.as_deref();
        let named_loopback = request.named_loopback();
        match route {
            Route::Preflight => Step::Respond(Response::preflight()),
            Route::Health => Step::Respond(health(&node())),
            Route::Demo(file) => Step::Respond(demo::file(file)),
            Route::Metrics | Route::Cluster => {
                match self.admin.admit(authorization, named_loopback, door) {
                    Ok(()) if route == Route::Cluster => Step::Survey,
                    Ok(()) => Step::Measure,
                    Err(problem) => Step::Respond(problem.response()),
                }
            }
            Route::DemoConfig => Step::Respond(demo::config(&self.apps, named_loopback)),
            Route::Api { app, endpoint } => match self.command(app, endpoint, request, now) {
                Ok(command) => Step::Ask(command),
                Err(problem) => Step::Respond(problem.response()),
            },
        }
    }

    fn command(
        &self,
        app: &str,
        endpoint: Endpoint<'_>,
        request: &Request,
        now: Instant,
    ) -> Result<Command, Problem> {
        let app = self.apps.identify(app, request.authorization.as_deref())?;
        // Before the body is read: a client that repeats an expensive request pays too.
        let session = endpoint.session().and_then(|session| session.parse().ok());
        if session.is_some_and(|session| !self.rates.borrow_mut().allow(session, now)) {
            return Err(Problem::TooManyRequests);
        }
        let ask = calls::ask(endpoint, &request.body)?;
        Ok(Command { app, ask })
    }
}

/// The response for what the desk answered.
pub fn answer(answer: Answer) -> Response {
    render::answer(answer)
}

fn health(node: &NodeInfo) -> Response {
    let health = Health {
        status: if node.draining { "draining" } else { "ok" },
        version: node.version,
        shards: node.shards,
        sessions: node.sessions,
    };
    Response::json(200, &health)
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    version: &'static str,
    shards: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<usize>,
}
