//! A pipe's end as a message carries it.

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::inlet::{Inlet, Partial};
use super::outlet::Outlet;
use crate::Fd;
use crate::shm::memory::Memory;

#[derive(Serialize, Deserialize)]
pub(super) struct TravellingEnd {
    memory: Fd,
    bell: Fd,
    line: Fd,
    /// Of a sending end: where the bell is heard.
    heard: Option<Fd>,
    opened: Option<(u64, Fd)>,
    partial: Option<TravellingPartial>,
}

#[derive(Serialize, Deserialize)]
struct TravellingPartial {
    is_bytes: bool,
    total: usize,
    bytes: Vec<u8>,
    handles: Vec<Fd>,
}

impl TravellingEnd {
    pub(super) fn of_outlet(outlet: &Outlet) -> Self {
        Self {
            memory: Fd::shared(Arc::clone(outlet.mouth.memory.file())),
            bell: Fd::shared(Arc::clone(&outlet.mouth.bell)),
            line: Fd::shared(Arc::clone(&outlet.mouth.line)),
            heard: Some(Fd::shared(Arc::clone(&outlet.mouth.heard))),
            opened: None,
            partial: None,
        }
    }

    /// What has arrived of a message goes along.
    pub(super) fn of_inlet(inlet: &Inlet) -> Self {
        let opened = inlet.opened.as_ref();
        let partial = inlet.partial.as_ref().map(|partial| TravellingPartial {
            is_bytes: partial.is_bytes,
            total: partial.total,
            bytes: partial.bytes.clone(),
            handles: partial.handles.iter().cloned().map(Fd::shared).collect(),
        });
        Self {
            memory: Fd::shared(Arc::clone(inlet.memory.file())),
            bell: Fd::shared(Arc::clone(&inlet.bell)),
            line: Fd::shared(Arc::clone(&inlet.line)),
            heard: None,
            opened: opened.map(|(id, fd)| (*id, Fd::shared(Arc::clone(fd)))),
            partial,
        }
    }

    pub(super) fn into_outlet(self) -> io::Result<Outlet> {
        let memory = Memory::open(self.memory.into_shared())?;
        let heard = self
            .heard
            .ok_or_else(|| crate::courier::invalid("an end of a pipe without its bell"))?;
        Ok(Outlet::new(
            memory,
            self.bell.into_shared(),
            heard.into_shared(),
            self.line.into_shared(),
        ))
    }

    pub(super) fn into_inlet(self) -> io::Result<Inlet> {
        let memory = Memory::open(self.memory.into_shared())?;
        let mut inlet = Inlet::new(memory, self.bell.into_shared(), self.line.into_shared());
        inlet.opened = self.opened.map(|(id, fd)| (id, fd.into_shared()));
        inlet.partial = self
            .partial
            .filter(|partial| partial.bytes.len() <= partial.total)
            .map(|partial| Partial {
                is_bytes: partial.is_bytes,
                total: partial.total,
                bytes: partial.bytes,
                handles: partial.handles.into_iter().map(Fd::into_shared).collect(),
            });
        Ok(inlet)
    }
}
