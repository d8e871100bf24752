//! Deadlines of the requests of one thread. There are many and hardly one is ever reached, so that setting and
//! forgetting one has to be cheap: a place in a list that is looked through now and then, instead of a timer each.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    task::{Poll, Waker},
};

use crate::gateway::balance::Nanos;

/// See the module. [`Deadlines::expire`] sets how late a deadline may be noticed.
#[derive(Default)]
pub(crate) struct Deadlines(RefCell<List>);

#[derive(Default)]
struct List {
    places: Vec<Place>,
    free: Vec<usize>,
}

enum Place {
    Free,
    Waits(Nanos, Waker),
    Over,
}

impl Deadlines {
    /// Ends what should have ended by now.
    pub(crate) fn expire(&self, now: Nanos) {
        let mut late = Vec::new();
        for place in &mut self.0.borrow_mut().places {
            if matches!(place, Place::Waits(until, _) if *until <= now)
                && let Place::Waits(_, waker) = mem::replace(place, Place::Over)
            {
                late.push(waker);
            }
        }
        // Not under the borrow: who is woken may end, and give back its place.
        late.into_iter().for_each(Waker::wake);
    }

    /// What `future` comes to, or `None` where it has come to nothing at `until`.
    pub(crate) async fn within<F: Future>(&self, until: Nanos, mut future: Pin<&mut F>) -> Option<F::Output> {
        let mut held = Held { deadlines: self, place: None };
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            if held.is_over(until, context.waker()) { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }
}

/// A place in the list.
struct Held<'a> {
    deadlines: &'a Deadlines,
    place: Option<usize>,
}

impl Held<'_> {
    /// Takes a place, or looks at the one that it has.
    fn is_over(&mut self, until: Nanos, waker: &Waker) -> bool {
        let mut list = self.deadlines.0.borrow_mut();
        match self.place {
            None => {
                let waits = Place::Waits(until, waker.clone());
                let at = list.free.pop();
                if let Some(place) = at.and_then(|at| list.places.get_mut(at)) {
                    *place = waits;
                } else {
                    list.places.push(waits);
                }
                self.place = Some(at.unwrap_or(list.places.len() - 1));
                false
            }
            Some(at) => match &mut list.places[at] {
                Place::Waits(_, known) => {
                    known.clone_from(waker);
                    false
                }
                Place::Over | Place::Free => true,
            },
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let Some(at) = self.place else { return };
        let mut list = self.deadlines.0.borrow_mut();
        let left = mem::replace(&mut list.places[at], Place::Free);
        list.free.push(at);
        drop(list);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        pin::pin,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Context, Wake},
    };

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_deadline_ends_what_waits_and_nothing_else() {
        let (deadlines, woken) = (Deadlines::default(), Arc::new(Woken::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let (mut one, mut two) = (pin!(pending::<()>()), pin!(pending::<()>()));
        let mut early = pin!(deadlines.within(10, one.as_mut()));
        let mut late = pin!(deadlines.within(20, two.as_mut()));
        assert!(
            early.as_mut().poll(&mut context).is_pending() && late.as_mut().poll(&mut context).is_pending()
        );
        deadlines.expire(9);
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        deadlines.expire(10);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert_eq!(early.as_mut().poll(&mut context), Poll::Ready(None));
        assert!(late.as_mut().poll(&mut context).is_pending());
        assert_eq!(pin!(deadlines.within(0, pin!(ready(7)))).poll(&mut context), Poll::Ready(Some(7)));
    }

    #[test]
    fn places_are_used_again() {
        let deadlines = Deadlines::default();
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..100 {
            let mut waits = [pending::<()>(), pending()];
            let mut both = waits.each_mut().map(|wait| Box::pin(deadlines.within(10, Pin::new(wait))));
            for one in &mut both {
                assert!(one.as_mut().poll(&mut context).is_pending());
            }
        }
        let list = deadlines.0.borrow();
        assert_eq!((list.places.len(), list.free.len()), (2, 2));
        assert!(list.places.iter().all(|place| matches!(place, Place::Free)), "no waker is kept");
    }
}
