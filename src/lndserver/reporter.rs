//! Reports to whichever master answers. Every connection begins with all there is to say; after that, what changes. A host
//! where nothing happens says nothing, and so costs nothing: who wants to know whether it is there asks it.

use super::board::NodeStatus;
use super::host::Host;
use super::masters::Masters;
use super::outbox::{Letter, Outbox, Sequence};
use super::proto as v1;
use super::proto::fleet_client::FleetClient;
use super::proto::report_request::Report;
use crate::backoff::Backoff;
use crate::model::host::HostReport;
use crate::pki::Standing;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

/// A master that has acknowledged nothing for so long although there is something is given up. One that is only slow, because
/// a host with many nodes has much to say, is not.
const ACK_WITHIN: Duration = Duration::from_secs(15);
/// Of failures in a row, one in so many is logged.
const TELL_EVERY: u32 = 30;
/// Reports on their way at once.
const WINDOW: usize = 64;

/// Sends the reports of one host.
#[derive(Debug)]
pub struct Reporter {
    /// Whose.
    pub host: Arc<Host>,
    /// To whom.
    pub masters: Arc<Masters>,
    /// The backups.
    pub outbox: Arc<Outbox>,
    /// The numbers.
    pub sequence: Arc<Sequence>,
    /// How often the host looks how it is, and for backups that it missed.
    pub look_every: Duration,
}

impl Reporter {
    /// Goes on until it is dropped.
    pub async fn run(self) {
        let mut failures = 0;
        loop {
            let standing = self.masters.standing();
            let (master, channel) = match self.masters.next() {
                Ok(next) => next,
                Err(e) => {
                    tracing::error!(error = %e, "no master can be dialled");
                    tokio::time::sleep(Backoff::CONNECT.pause(failures, rand::random())).await;
                    failures += 1;
                    continue;
                }
            };
            let began = Instant::now();
            let mut session = Session::new(&self);
            let Err(status) = session.run(channel, standing).await;
            let acknowledged = session.acknowledged;
            if failures % TELL_EVERY == 0 {
                let code = status.code();
                tracing::warn!(master, status = status.message(), ?code, acknowledged, "reports interrupted");
            }
            // A master that listened for a while before it left does not count as a failure.
            failures = if acknowledged > 0 && began.elapsed() > Backoff::CONNECT.longest { 0 } else { failures + 1 };
            tokio::time::sleep(Backoff::CONNECT.pause(failures, rand::random())).await;
        }
    }
}

/// One connection to one master.
struct Session<'a> {
    reporter: &'a Reporter,
    /// Sent and not acknowledged, with the time.
    pending: BTreeMap<u64, Instant>,
    acknowledged: u64,
    /// When the newest acknowledgement came.
    heard: Option<Instant>,
    /// Backups up to this one were sent.
    sent: u64,
    /// How the host said that it is.
    said: Option<HostReport>,
}

enum Event {
    Ack(v1::ReportAck),
    Nodes(Vec<NodeStatus>),
    Backup(Letter),
    Tick,
    TooLate,
    Over,
}

impl<'a> Session<'a> {
    fn new(reporter: &'a Reporter) -> Self {
        Self { reporter, pending: BTreeMap::new(), acknowledged: 0, heard: None, sent: 0, said: None }
    }

    /// Ends only by failing.
    async fn run(&mut self, channel: Channel, standing: Option<Standing>) -> Result<std::convert::Infallible, Status> {
        let (host, outbox) = (&self.reporter.host, &self.reporter.outbox);
        let board = &host.shared().board;
        let (to_master, reports) = mpsc::channel(WINDOW);
        let mut acks = FleetClient::new(channel).report(ReceiverStream::new(reports)).await?.into_inner();
        let mut tick = tokio::time::interval(self.reporter.look_every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        board.report_all();
        loop {
            let room = self.pending.len() < WINDOW / 2;
            let deadline = self.pending.values().min().map(|sent| self.heard.unwrap_or(*sent).max(*sent) + ACK_WITHIN);
            let event = tokio::select! {
                ack = acks.message() => Event::Ack(ack?.ok_or_else(|| Status::unavailable("the master ended the stream"))?),
                letter = outbox.after(self.sent), if room => Event::Backup(letter?),
                nodes = board.take_unreported(), if room => Event::Nodes(nodes),
                _ = tick.tick(), if room => Event::Tick,
                () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => Event::TooLate,
                () = over(standing.as_ref()) => Event::Over,
            };
            match event {
                Event::Ack(ack) => self.acknowledge(&ack)?,
                Event::Backup(letter) => {
                    self.sent = letter.sequence;
                    let (node_id, bytes) = (letter.node.to_string(), letter.bytes);
                    let report = Report::Backup(v1::ChannelBackup { node_id, bytes });
                    self.send(&to_master, letter.sequence, report).await?;
                }
                Event::Nodes(nodes) => {
                    for status in &nodes {
                        let sequence = self.reporter.sequence.next()?;
                        self.send(&to_master, sequence, Report::Node(status.into())).await?;
                    }
                }
                Event::Tick => {
                    host.shared().backups.look_at_all();
                    let status = host.status()?;
                    let report = HostReport::from(&status);
                    if self.said.as_ref().is_none_or(|said| report.is_news_after(said)) {
                        let sequence = self.reporter.sequence.next()?;
                        self.send(&to_master, sequence, Report::Host(status)).await?;
                        self.said = Some(report);
                    }
                }
                Event::Over => {
                    return Err(Status::unauthenticated("an authority is not believed any more: dialling anew"));
                }
                Event::TooLate => return Err(Status::deadline_exceeded("a report was not acknowledged")),
            }
        }
    }

    async fn send(
        &mut self,
        to: &mpsc::Sender<v1::ReportRequest>,
        sequence: u64,
        report: Report,
    ) -> Result<(), Status> {
        let generation = self.reporter.host.identity().generation;
        let report = v1::ReportRequest { generation, sequence, report: Some(report) };
        // A master that does not read leaves no room; it must not hold up the rest of this loop for good.
        let sent = tokio::time::timeout(ACK_WITHIN, to.send(report)).await;
        sent.map_err(|_| Status::deadline_exceeded("the master does not read"))?
            .map_err(|_| Status::unavailable("the master ended the stream"))?;
        self.pending.insert(sequence, Instant::now());
        Ok(())
    }

    fn acknowledge(&mut self, ack: &v1::ReportAck) -> Result<(), Status> {
        self.acknowledged += 1;
        self.heard = Some(Instant::now());
        self.pending.remove(&ack.sequence);
        if !ack.refused.is_empty() {
            tracing::warn!(report.sequence = ack.sequence, reason = ack.refused, "a report was refused");
        }
        Ok(self.reporter.outbox.done(ack.sequence)?)
    }
}

async fn over(standing: Option<&Standing>) {
    match standing {
        Some(standing) => standing.over().await,
        None => std::future::pending().await,
    }
}
