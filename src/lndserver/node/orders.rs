//! What a node's task makes of orders: the fence, what is wanted from now on, and the removal.

use super::super::record::{Desired, Record};
use super::super::spec::NodeSpec;
use super::super::start::Seat;
use super::actor::{Actor, State, Wanted};
use super::{Command, Order, OrderError, instance};
use crate::fault;

impl Actor {
    pub(super) async fn obey(&mut self, command: Command) {
        let Command { epoch, order, reply } = command;
        if epoch < self.record.epoch {
            let _ = reply.send(Err(OrderError::Fenced { have: self.record.epoch }));
            return;
        }
        self.waiters.retain(|(_, reply)| !reply.is_closed());
        match self.accept(epoch, order).await {
            Ok(wanted) => {
                // Who waited for something else waits in vain.
                for (_, overtaken) in self.waiters.extract_if(.., |(other, _)| *other != wanted) {
                    let _ = overtaken.send(Err(OrderError::Failed("overtaken by another order".to_owned())));
                }
                self.waiters.push((wanted, reply));
            }
            Err(e) => {
                let _ = reply.send(Err(e));
            }
        }
    }

    /// Writes down what is wanted from now on.
    async fn accept(&mut self, epoch: u64, order: Order) -> Result<Wanted, OrderError> {
        // The epoch counts as seen even where the rest is refused.
        self.keep(Record { epoch, ..self.record.clone() })?;
        match order {
            Order::Ensure(spec) => {
                self.accept_spec(*spec)?;
                self.start_soon();
                Ok(Wanted::Up)
            }
            Order::Restart if self.record.desired == Desired::Running => {
                self.restarting = matches!(self.state, State::Up(_));
                self.start_soon();
                Ok(Wanted::Up)
            }
            Order::Restart => Err(OrderError::Refused("it is not meant to run".to_owned())),
            Order::Stop => {
                if self.record.desired == Desired::Running {
                    self.keep(Record { desired: Desired::Stopped, ..self.record.clone() })?;
                }
                self.restarting = false;
                Ok(Wanted::Down)
            }
            Order::Remove => self.remove().await.map(|()| Wanted::Down),
        }
    }

    fn accept_spec(&mut self, spec: NodeSpec) -> Result<(), OrderError> {
        if let Some(old) = &self.record.spec
            && (old.slot, old.network) != (spec.slot, spec.network)
        {
            return Err(OrderError::Refused("a node keeps its slot and its network".to_owned()));
        }
        instance::program(&self.shared, &spec).map_err(OrderError::Refused)?;
        let fresh = self.record.spec.is_none();
        self.shared.slots.take(spec.slot, &self.node)?;
        let kept = self.keep(Record { desired: Desired::Running, spec: Some(spec), ..self.record.clone() });
        if kept.is_err() && fresh {
            self.shared.slots.free(&self.node);
        }
        kept
    }

    /// An order is a reason not to wait for the end of a pause.
    fn start_soon(&mut self) {
        if let State::Down(down) = &mut self.state {
            down.not_before = None;
        }
    }

    /// Sets the folder aside. The record goes last: an order that was cut off between the two finds nothing to move.
    async fn remove(&mut self) -> Result<(), OrderError> {
        if self.record.desired == Desired::Running || matches!(self.state, State::Up(_)) {
            return Err(OrderError::Refused("it runs; stop it first".to_owned()));
        }
        fault::point("lndserver.remove.before").await;
        let slot = self.record.spec.as_ref().map(|spec| spec.slot);
        instance::set_aside(&self.shared, Seat { dir: &self.dir, slot }, &self.node).await?;
        fault::point("lndserver.remove.after").await;
        self.keep(Record { desired: Desired::Removed, spec: None, ..self.record.clone() })?;
        self.shared.backups.forget(&self.node);
        self.shared.slots.free(&self.node);
        Ok(())
    }

    fn keep(&mut self, record: Record) -> Result<(), OrderError> {
        if record != self.record {
            record.save(&self.dir).map_err(|e| OrderError::Failed(format!("cannot keep the order: {e}")))?;
            self.record = record;
        }
        Ok(())
    }
}
