//! A ceremony: one party's side of one run of a protocol.
//!
//! Each runs on a thread of its own, which owns all of its secrets and talks through two channels. A panic there ends that thread alone,
//! and long computations never hold Python's interpreter lock.

use std::collections::HashSet;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;

use cggmp24::ExecutionId;
use cggmp24::keygen::ThresholdKeygenBuilder;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};
use rand_core::OsRng;
use round_based::rounds_router::ProtocolMessage;
use round_based::state_machine::{ProceedResult, StateMachine};
use round_based::{Incoming, MessageDestination, MessageType};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::errors::{Fault, explain};
use crate::share::{Aux, Core, KeyShare, Primes};
use crate::signing::Presignature;
use crate::wire::{ALL, Phase, Seat, decode, encode};
use crate::{Curve, Level};

const STACK_BYTES: usize = 16 << 20;
const DIED: &str = "the engine failed; start the ceremony again under another execution id";

/// Bytes for one other party, or for all of them when `to` is None.
#[pyclass(frozen, module = "isthmus_threshold")]
pub struct Message {
    #[pyo3(get)]
    to: Option<u16>,
    #[pyo3(get)]
    body: Py<PyBytes>,
}

pub enum Outcome {
    Core(Core),
    Aux(Aux),
    Presignature(Box<Presignature>),
}

enum Answer {
    Sent(Vec<(u16, Vec<u8>)>),
    Done(Vec<(u16, Vec<u8>)>, Outcome),
    Fault(Fault),
}

struct Posted {
    sender: u16,
    is_broadcast: bool,
    body: Vec<u8>,
}

struct Line {
    begin: Option<Sender<()>>,
    inbox: Option<Sender<Posted>>,
    answers: Receiver<Answer>,
    outcome: Option<Outcome>,
}

/// One party's side of one run. Safe to use from several threads; useless in a forked child.
#[pyclass(frozen, module = "isthmus_threshold")]
pub struct Ceremony {
    seat: Seat,
    line: Mutex<Line>,
    done: AtomicBool,
    process: u32,
}

#[pymethods]
impl Ceremony {
    #[classmethod]
    fn __class_getitem__(class: &Bound<'_, PyType>, _result: &Bound<'_, PyAny>) -> Py<PyType> {
        class.clone().unbind()
    }

    #[getter]
    fn phase(&self) -> &'static str {
        self.seat.phase.name()
    }

    #[getter]
    fn party(&self) -> u16 {
        self.seat.party
    }

    #[getter]
    fn parties(&self) -> Vec<u16> {
        self.seat.parties.clone()
    }

    #[getter]
    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Begin, once. Returns the first messages to send.
    fn start(&self, py: Python<'_>) -> PyResult<Vec<Message>> {
        let step = py.detach(|| {
            self.step(|line| match line.begin.take() {
                Some(begin) => begin.send(()).map_err(|_| died()),
                None => Err(Fault::Invalid("a ceremony starts once")),
            })
        });
        self.deliver(py, step)
    }

    /// Take one message from `sender`, who is known from the transport. Returns the messages to send next.
    fn receive(&self, py: Python<'_>, sender: u16, body: &[u8]) -> PyResult<Vec<Message>> {
        let step = self.seat.open(sender, body).and_then(|(is_broadcast, body)| {
            let posted = Posted { sender: self.seat.place(sender).unwrap_or(ALL), is_broadcast, body: body.to_vec() };
            py.detach(|| {
                self.step(|line| match (&line.begin, &line.inbox) {
                    (None, Some(inbox)) => inbox.send(posted).map_err(|_| died()),
                    (Some(_), _) => Err(Fault::Refused("the ceremony has not started", vec![])),
                    (None, None) => Err(Fault::Refused("the ceremony has ended", vec![])),
                })
            })
        });
        self.deliver(py, step)
    }

    /// What the ceremony was for. It is handed out once.
    fn result(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let outcome = self.line.lock().unwrap_or_else(PoisonError::into_inner).outcome.take();
        match outcome {
            Some(Outcome::Core(core)) => Ok(Py::new(py, core)?.into_any()),
            Some(Outcome::Aux(aux)) => Ok(Py::new(py, aux)?.into_any()),
            Some(Outcome::Presignature(one)) => Ok(Py::new(py, *one)?.into_any()),
            None => Err(Fault::Invalid("there is no result, or it was taken already").raise(py, self.phase())),
        }
    }

    fn __repr__(&self) -> String {
        format!("Ceremony({}, party {} of {:?})", self.phase(), self.seat.party, self.seat.parties)
    }
}

impl Ceremony {
    /// Opens a thread that waits for `start` and then runs the protocol that `run` sets up.
    fn open(seat: Seat, run: impl FnOnce(Run) + Send + 'static) -> Result<Self, Fault> {
        let (inbox, posts) = channel();
        let (answer, answers) = channel();
        let (begin, begun) = channel();
        let seat_there = seat.clone();
        let body = move || {
            if begun.recv().is_ok() {
                run(Run { seat: seat_there, posts, answer, sent: vec![], seen: HashSet::new() });
            }
        };
        let thread = Builder::new().name(format!("threshold {}", seat.phase.name())).stack_size(STACK_BYTES);
        thread.spawn(body).map_err(|_| Fault::Invalid("no thread could be started"))?;
        let line = Mutex::new(Line { begin: Some(begin), inbox: Some(inbox), answers, outcome: None });
        Ok(Ceremony { seat, line, done: AtomicBool::new(false), process: std::process::id() })
    }

    /// Asks the thread one thing and waits for its answer, without the interpreter lock.
    fn step(&self, ask: impl FnOnce(&mut Line) -> Result<(), Fault>) -> Result<Vec<(u16, Vec<u8>)>, Fault> {
        if self.process != std::process::id() {
            return Err(Fault::Invalid("a ceremony cannot go on in a forked process"));
        }
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        match ask(&mut line).and_then(|()| line.answers.recv().map_err(|_| died())) {
            Ok(Answer::Sent(messages)) => Ok(messages),
            Ok(Answer::Done(messages, outcome)) => {
                line.inbox = None;
                line.outcome = Some(outcome);
                self.done.store(true, Ordering::Release);
                Ok(messages)
            }
            Ok(Answer::Fault(fault)) | Err(fault) => {
                if matches!(fault, Fault::Aborted(..)) {
                    line.inbox = None;
                }
                Err(fault)
            }
        }
    }

    fn deliver(&self, py: Python<'_>, step: Result<Vec<(u16, Vec<u8>)>, Fault>) -> PyResult<Vec<Message>> {
        let messages = step.map_err(|fault| fault.raise(py, self.phase()))?;
        let wrap = |(to, body): (u16, Vec<u8>)| Message { to: (to != ALL).then_some(to), body: PyBytes::new(py, &body).unbind() };
        Ok(messages.into_iter().map(wrap).collect())
    }
}

fn died() -> Fault {
    Fault::Aborted(DIED.to_owned(), vec![])
}

/// The thread's side of a ceremony.
struct Run {
    seat: Seat,
    posts: Receiver<Posted>,
    answer: Sender<Answer>,
    sent: Vec<(u16, Vec<u8>)>,
    seen: HashSet<(u16, u16)>,
}

impl Run {
    /// Drives a protocol until it has ended or nobody listens any more.
    fn drive<O, E, M>(
        mut self,
        mut machine: impl StateMachine<Output = Result<O, E>, Msg = M>,
        wrap: impl FnOnce(O) -> Result<Outcome, Fault>,
    ) where
        E: Error + 'static,
        M: ProtocolMessage + Serialize + DeserializeOwned,
    {
        let end = loop {
            match machine.proceed() {
                ProceedResult::SendMsg(message) => match self.post(message.recipient, &message.msg) {
                    Ok(()) => {}
                    Err(fault) => break Answer::Fault(fault),
                },
                ProceedResult::NeedsOneMoreMessage => {
                    let Some(incoming) = self.next() else { return };
                    if machine.received_msg(incoming).is_err() {
                        break Answer::Fault(died());
                    }
                }
                ProceedResult::Yielded => {}
                ProceedResult::Output(Ok(output)) => match wrap(output) {
                    Ok(outcome) => break Answer::Done(std::mem::take(&mut self.sent), outcome),
                    Err(fault) => break Answer::Fault(fault),
                },
                ProceedResult::Output(Err(error)) => {
                    let (reason, accused) = explain(&error);
                    let guilty = accused.iter().filter_map(|&place| self.seat.parties.get(usize::from(place)).copied()).collect();
                    break Answer::Fault(Fault::Aborted(reason, guilty));
                }
                ProceedResult::Error(_) => break Answer::Fault(died()),
            }
        };
        let _ = self.answer.send(end); // nobody left to tell: the same end
    }

    fn post<M: Serialize>(&mut self, recipient: MessageDestination, message: &M) -> Result<(), Fault> {
        let to = match recipient {
            MessageDestination::AllParties => ALL,
            MessageDestination::OneParty(place) => *self.seat.parties.get(usize::from(place)).ok_or_else(died)?,
        };
        let frame = self.seat.seal(to, &encode(message)?);
        self.sent.push((to, frame));
        Ok(())
    }

    /// Hands out what there is to send, and waits for a message that the protocol may see. None when the ceremony was dropped.
    fn next<M: ProtocolMessage + Serialize + DeserializeOwned>(&mut self) -> Option<Incoming<M>> {
        let mut answer = Answer::Sent(std::mem::take(&mut self.sent));
        loop {
            self.answer.send(answer).ok()?;
            let posted = self.posts.recv().ok()?;
            let guilty = self.seat.parties.get(usize::from(posted.sender)).copied().into_iter().collect();
            answer = match decode::<M>(&posted.body) {
                None => Answer::Fault(Fault::Refused("the message is malformed", guilty)),
                Some(msg) if !self.seen.insert((posted.sender, msg.round())) => {
                    Answer::Fault(Fault::Refused("the party has sent its message of this round already", guilty))
                }
                Some(msg) => {
                    let msg_type = if posted.is_broadcast { MessageType::Broadcast } else { MessageType::P2P };
                    return Some(Incoming { id: self.seen.len() as u64, sender: posted.sender, msg_type, msg });
                }
            };
        }
    }
}

/// Generate a key of which any `threshold` of `parties` parties can sign, and no fewer.
#[pyfunction]
pub fn keygen(py: Python<'_>, party: u16, parties: u16, threshold: u16, execution_id: &[u8]) -> PyResult<Ceremony> {
    let open = || {
        if !(2..=parties).contains(&threshold) {
            return Err(Fault::Invalid("the threshold is at least 2 and at most the number of parties"));
        }
        let seat = Seat::new(Phase::Keygen, party, (0..parties).collect(), execution_id)?;
        let context = seat.context(threshold, &[]);
        Ceremony::open(seat, move |run| {
            let mut rng = OsRng;
            let builder: ThresholdKeygenBuilder<Curve, Level> =
                cggmp24::keygen(ExecutionId::new(&context), party, parties).set_threshold(threshold);
            run.drive(builder.into_state_machine(&mut rng), |core| Ok(Outcome::Core(Core(core))));
        })
    };
    open().map_err(|fault| fault.raise(py, Phase::Keygen.name()))
}

/// Agree on the Paillier keys and ring-Pedersen parameters that signing needs. `primes` are this party's own, and serve once.
#[pyfunction]
pub fn aux(py: Python<'_>, party: u16, parties: u16, execution_id: &[u8], primes: &Primes) -> PyResult<Ceremony> {
    let open = || {
        let seat = Seat::new(Phase::Aux, party, (0..parties).collect(), execution_id)?;
        let (context, primes) = (seat.context(parties, &[]), primes.take()?);
        Ceremony::open(seat, move |run| {
            let mut rng = OsRng;
            let builder = cggmp24::aux_info_gen(ExecutionId::new(&context), party, parties, primes);
            run.drive(builder.into_state_machine(&mut rng), |aux| Ok(Outcome::Aux(Aux(aux))));
        })
    };
    open().map_err(|fault| fault.raise(py, Phase::Aux.name()))
}

/// Prepare one signature of the shared key by exactly the parties in `signers`, before it is known what will be signed.
#[pyfunction]
pub fn presign(py: Python<'_>, share: &KeyShare, signers: Vec<u16>, execution_id: &[u8]) -> PyResult<Ceremony> {
    let open = || {
        if signers.len() != usize::from(share.threshold()) || signers.iter().any(|&one| one >= share.parties()) {
            return Err(Fault::Invalid("as many of the key's parties sign as its threshold says"));
        }
        let seat = Seat::new(Phase::Presign, share.party(), signers.clone(), execution_id)?;
        let place = seat.place(share.party()).ok_or(Fault::Invalid("this party does not take part"))?;
        let context = seat.context(share.threshold(), &share.point());
        let share = share.keep();
        Ceremony::open(seat.clone(), move |run| {
            let mut rng = OsRng;
            let builder = cggmp24::signing(ExecutionId::new(&context), place, &signers, &share);
            run.drive(builder.generate_presignature_sync(&mut rng), |(secret, public)| {
                let one = Presignature::new(seat, share.shared_public_key.into_inner(), secret, public);
                Ok(Outcome::Presignature(Box::new(one)))
            });
        })
    };
    open().map_err(|fault| fault.raise(py, Phase::Presign.name()))
}
