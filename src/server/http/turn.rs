//! HTTP's part in a core's turn.

use std::sync::atomic::Ordering;
use std::time::Instant;

use raftkv_protocol::client::{Code, Refusal};

use super::super::budget;
use super::super::core_loop::{CoreLoop, is_full};
use super::super::io::http_token;
use super::super::message::{Charge, ExchangeId, Origin, Reader, ReplyTo};
use super::super::room::Room;
use super::turn_away;
use crate::api::ask::{OwnedAnswer, OwnedOperation, OwnedRefusal, Question, Scrape};
use crate::api::binary;
use crate::metrics::requests::{Face, Taken, Task};
use crate::socket::Network;

impl<N: Network> CoreLoop<N> {
    /// Takes in a connection, if there is room for it.
    pub(in crate::server) fn welcome_http(&mut self, mut socket: N::Socket) {
        self.router.counters.http_connections_accepted += 1;
        if is_full(&self.node) || self.node.sockets.load(Ordering::Relaxed) >= self.node.sockets_max {
            self.router.counters.connections_refused += 1;
            // Whoever has gone already hears nothing.
            turn_away(&socket).ok();
            return;
        }
        let registered = self.io.network.register(&mut socket, http_token(self.http.next_place()));
        match registered {
            Ok(()) => {
                self.http.add(socket);
                self.node.sockets.fetch_add(1, Ordering::Relaxed);
                self.node.connections.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => log::debug!("an HTTP connection was gone before it could be served: {error}"),
        }
    }

    /// Polls the tasks that are ready, and hands what they ask to the router.
    pub(in crate::server) fn run_http(&mut self, now: Instant) {
        self.poll_http(now);
        let (mut questions, scrapes) = self.http.take_asked();
        let is_status = |question: &Question| matches!(question.operation, OwnedOperation::Status);
        if !scrapes.is_empty() || questions.iter().any(is_status) {
            // Whoever asks for what was counted is to find itself.
            self.http.count(&mut self.router.counters, &mut self.router.requests);
        }
        for question in questions.drain(..) {
            let exchange = self.io.exchanges.name();
            self.take_question(exchange, question);
        }
        self.http.questions = questions;
        for scrape in scrapes {
            self.take_scrape(scrape);
        }
    }

    /// Polls the tasks whose answers have come, so that they are on their way before the turn ends.
    pub(in crate::server) fn poll_http(&mut self, now: Instant) {
        let ended = self.http.run(now);
        self.node.sockets.fetch_sub(ended, Ordering::Relaxed);
        self.node.connections.fetch_sub(ended, Ordering::Relaxed);
        self.io.count_http_unread(self.http.unread_bytes());
    }

    /// Goes on with a read that has waited for room.
    pub(in crate::server) fn resume_question(&mut self, exchange: ExchangeId) {
        if let Some(question) = self.http.unpark(exchange) {
            self.take_question(exchange, question);
        }
    }

    fn take_question(&mut self, exchange: ExchangeId, question: Question) {
        if question.answer.is_canceled() {
            return;
        }
        let charge = budget::charge(&question.operation.borrow(), &self.node);
        let taken = self.taken(question.face, Task::of(&question.operation.borrow()));
        let room = match charge {
            Charge::Read(_) => self.io.room_for(Reader::Exchange(exchange), charge),
            Charge::Other(_) => Room::Now,
        };
        match room {
            Room::Now => {}
            Room::Later(_) => return self.http.park(exchange, question),
            Room::No => {
                self.router.counters.overloaded_replies += 1;
                self.router.counters.refused(Code::Overloaded);
                self.router.requests.answered(taken, Some(Code::Overloaded), taken.at);
                let message = "the clients of this core leave too many replies unread; try again later";
                let refusal = Refusal { code: Code::Overloaded, leader: None, message };
                question.answer.send(Err(refusal.into())).ok();
                return;
            }
        }
        let Question { operation, answer, .. } = question;
        self.io.open_exchange(
            exchange,
            charge,
            Box::new(move |at, result| {
                let outcome = match result {
                    Ok(given) => OwnedAnswer::copy(given).map(|answer| (at, answer)).ok_or_else(unexpected),
                    Err(refusal) => Err(refusal.into()),
                };
                // A client that has gone waits for nothing.
                answer.send(outcome).ok();
            }),
        );
        let to = ReplyTo { core: self.core(), origin: Origin::Exchange { exchange, charge, taken } };
        match binary::check(&operation.borrow(), &self.node.config.limits) {
            Ok(()) => self.router.request(operation.borrow(), to, self.now(), &mut self.io),
            Err((code, message)) => self.router.refuse(to, code, None, &message, &mut self.io),
        }
    }

    fn taken(&self, face: Face, task: Task) -> Taken {
        Taken { at: self.now(), face, task }
    }

    /// Has the cores tell what they know of themselves. That is served whatever else there is to do: it matters most then.
    fn take_scrape(&mut self, scrape: Scrape) {
        let (exchange, charge) = (self.io.exchanges.name(), budget::figures_charge(&self.node));
        let scraper = Box::new(move |figures: Result<_, Refusal<'_>>| {
            // Whoever has gone waits for nothing.
            scrape.send(figures.map_err(OwnedRefusal::from)).ok();
        });
        self.io.open_scrape(exchange, charge, scraper);
        let taken = self.taken(Face::Rest, Task::Metrics);
        let to = ReplyTo { core: self.core(), origin: Origin::Exchange { exchange, charge, taken } };
        self.router.desk.statuses.wait(to);
    }
}

fn unexpected() -> OwnedRefusal {
    OwnedRefusal::new(Code::Timeout, "the node has an answer that this face does not know; please report this")
}
