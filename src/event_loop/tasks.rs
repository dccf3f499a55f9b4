//! Futures that a core's loop polls by hand: what an async runtime would otherwise run.
//!
//! A task is polled when something has woken it. [`Tasks::run_ready`] polls those that are ready now, as one batch: what
//! they wake meanwhile, themselves included, has the next batch, so that no task keeps the sockets waiting. A waker
//! stays with its place in the table, so that one of an earlier task there costs a needless poll and no more.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake as WakeTask, Waker};

use hyper::rt::Executor;
use slab::Slab;

use super::inbox::Wake;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// A task's place in the table of its loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskId(usize);

/// The tasks of one loop.
pub struct Tasks {
    tasks: Slab<Task>,
    /// By place. They outlive the tasks there.
    places: Vec<Place>,
    ready: Arc<Ready>,
    /// The batch that is being run.
    batch: Vec<usize>,
    newcomers: Spawner,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

/// Which tasks are to be polled, and whether the loop must be woken for that.
struct Ready {
    places: Mutex<Vec<usize>>,
    /// The loop will look at `places` before it sleeps.
    is_awake: AtomicBool,
    wake: Wake,
}

/// A place in the table, as its task sees it.
struct Place {
    state: Arc<PlaceWaker>,
    waker: Waker,
}

/// What wakes the task in one place.
struct PlaceWaker {
    place: usize,
    /// It is in the queue already.
    is_queued: AtomicBool,
    ready: Arc<Ready>,
}

impl WakeTask for PlaceWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            self.ready.push(self.place);
        }
    }
}

impl Ready {
    /// Queues a place. The loop looks at the queue again after it has said that it may sleep, so that it sees this or is
    /// woken.
    fn push(&self, place: usize) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).push(place);
        if !self.is_awake.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
    }
}

impl Tasks {
    /// No tasks yet; `wake` makes their loop turn.
    #[must_use]
    pub fn new(wake: Wake) -> Tasks {
        let ready = Ready { places: Mutex::default(), is_awake: AtomicBool::new(true), wake };
        Tasks {
            tasks: Slab::new(),
            places: Vec::new(),
            ready: Arc::new(ready),
            batch: Vec::new(),
            newcomers: Spawner::default(),
        }
    }

    /// Takes in a task. It is polled with the next batch.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + 'static) -> TaskId {
        self.insert(Box::pin(task))
    }

    /// A way for tasks to bring in others.
    #[must_use]
    pub fn spawner(&self) -> Spawner {
        self.newcomers.clone()
    }

    fn insert(&mut self, task: Task) -> TaskId {
        let place = self.tasks.insert(task);
        while self.places.len() <= place {
            let (place, ready) = (self.places.len(), Arc::clone(&self.ready));
            let state = Arc::new(PlaceWaker { place, is_queued: AtomicBool::new(false), ready });
            self.places.push(Place { waker: Waker::from(Arc::clone(&state)), state });
        }
        let id = TaskId(place);
        self.wake(id);
        id
    }

    /// Has a task polled with the next batch.
    pub fn wake(&self, id: TaskId) {
        if let Some(place) = self.places.get(id.0) {
            place.state.wake_by_ref();
        }
    }

    /// Has all tasks polled with the next batch.
    pub fn wake_all(&self) {
        self.tasks.iter().for_each(|(place, _)| self.wake(TaskId(place)));
    }

    /// Polls every task that was woken before, once. Whether there is another batch by now.
    pub fn run_ready(&mut self) -> bool {
        self.take_newcomers();
        let mut batch = std::mem::take(&mut self.batch);
        std::mem::swap(&mut batch, &mut self.ready.places.lock().unwrap_or_else(PoisonError::into_inner));
        for place in batch.drain(..) {
            self.poll(place);
        }
        self.batch = batch;
        self.take_newcomers();
        !self.ready.places.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn poll(&mut self, place: usize) {
        let Place { state, waker } = &self.places[place];
        // Before it is polled: what wakes it meanwhile counts.
        state.is_queued.store(false, Ordering::Release);
        let Some(task) = self.tasks.get_mut(place) else { return };
        if task.as_mut().poll(&mut Context::from_waker(waker)).is_ready() {
            drop(self.tasks.remove(place));
        }
    }

    fn take_newcomers(&mut self) {
        for task in self.newcomers.take() {
            self.insert(task);
        }
    }

    /// Whether no task is to be polled. Then the loop may sleep: whoever wakes one from now on wakes it.
    pub fn may_sleep(&self) -> bool {
        self.ready.is_awake.store(false, Ordering::Release);
        let is_idle = self.ready.places.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if !is_idle || !self.newcomers.is_empty() {
            self.ready.is_awake.store(true, Ordering::Release);
            return false;
        }
        true
    }

    /// The loop is up, and will look at what is ready before it sleeps again.
    pub fn wake_up(&self) {
        self.ready.is_awake.store(true, Ordering::Release);
    }

    /// How many tasks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

/// How tasks bring in others of the same loop: hyper does for the requests of an HTTP/2 connection.
#[derive(Clone, Default)]
pub struct Spawner {
    newcomers: Rc<RefCell<Vec<Task>>>,
}

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner").finish_non_exhaustive()
    }
}

impl Spawner {
    fn take(&self) -> Vec<Task> {
        std::mem::take(&mut self.newcomers.borrow_mut())
    }

    fn is_empty(&self) -> bool {
        self.newcomers.borrow().is_empty()
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Spawner {
    fn execute(&self, task: F) {
        self.newcomers.borrow_mut().push(Box::pin(task));
    }
}
