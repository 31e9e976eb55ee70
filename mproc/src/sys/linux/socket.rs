//! Packet sockets: a packet arrives whole or not at all, whoever is killed, and carries descriptors.
//!
//! If one end goes while there are packets for it that it has not read, the kernel answers the next call at the other end by `ECONNRESET`, once; behind that are the
//! packets that it had sent, and then the end. So whoever gets that answer asks again.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, getsockopt, sendmsg, socketpair,
    sockopt,
};

use super::descriptor::above_stdio;

/// The kernel's `SCM_MAX_FD`.
pub(crate) const MAX_DESCRIPTORS_PER_PACKET: usize = 253;

/// Two connected ends that keep packets apart and in order.
pub(crate) fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    Ok((above_stdio(one)?, above_stdio(other)?))
}

/// The user at the other end, at the time the pair was made.
pub(crate) fn peer_user(socket: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(getsockopt(&socket, sockopt::PeerCredentials)?.uid())
}

/// Sends one packet. With `wait` false, a full socket is `EAGAIN`.
pub(crate) fn send_packet(
    socket: BorrowedFd<'_>,
    parts: &[&[u8]],
    descriptors: &[BorrowedFd<'_>],
    wait: bool,
) -> io::Result<()> {
    let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() {
        &rights[..0]
    } else {
        &rights[..]
    };
    // A peer that is gone is an error here, and never a SIGPIPE.
    let mut flags = MsgFlags::MSG_NOSIGNAL;
    flags.set(MsgFlags::MSG_DONTWAIT, !wait);
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &parts, control, flags, None) {
            Ok(_) => return Ok(()), // OK to ignore the count: a packet is sent whole.
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// One packet, or the end of the stream of packets.
pub(crate) enum Received {
    Packet { length: usize },
    End,
}

/// Receives one packet into `buffer`, its descriptors onto the end of `descriptors`. With `wait` false, an empty socket is
/// `EAGAIN`.
///
/// A packet longer than `buffer` is an error, as are descriptors for which this process had no room (`EMFILE`); those that
/// did arrive are closed.
pub(crate) fn receive_packet(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
    wait: bool,
) -> io::Result<Received> {
    let flags = if wait { 0 } else { libc::MSG_DONTWAIT };
    receive_with(socket, buffer, descriptors, flags)
}

/// Looks at the packet that would be received next, and leaves it there. Its descriptors are descriptors of our own. An empty
/// socket is `EAGAIN`. Errors are those of [`receive_packet`].
pub(crate) fn peek_packet(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<Received> {
    receive_with(
        socket,
        buffer,
        descriptors,
        libc::MSG_DONTWAIT | libc::MSG_PEEK,
    )
}

/// Has [`peek_packet`] look at the first packet, and each time after that at the one behind: where it looks is remembered by the socket, for
/// all who have it.
pub(crate) fn peek_from_the_first(socket: BorrowedFd<'_>) -> io::Result<()> {
    let offset: libc::c_int = 0;
    // SAFETY: the value is passed together with its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            ptr::from_ref(&offset).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Receives the next packet without its descriptors, which are closed. With `keep`, only looks at it. An empty socket is
/// `EAGAIN`.
pub(crate) fn receive_bare(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    keep: bool,
) -> io::Result<Received> {
    let flags = libc::MSG_DONTWAIT | if keep { libc::MSG_PEEK } else { 0 };
    loop {
        // SAFETY: `buffer` is passed together with its length.
        let result = unsafe {
            libc::recv(
                socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                flags,
            )
        };
        match Errno::result(result) {
            Ok(0) => return Ok(Received::End),
            Ok(length) => {
                return Ok(Received::Packet {
                    length: length as usize,
                });
            }
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn receive_with(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
    flags: libc::c_int,
) -> io::Result<Received> {
    // One more than a packet can hold, so that a kernel which allows more shows as truncation and not as loss.
    const ROOM: usize =
        // SAFETY: CMSG_SPACE is arithmetic on its argument.
        unsafe {
            libc::CMSG_SPACE((size_of::<RawFd>() * (MAX_DESCRIPTORS_PER_PACKET + 1)) as u32)
        } as usize;
    // `cmsghdr` has to be aligned as a `usize`.
    let mut control = [0_usize; ROOM.div_ceil(size_of::<usize>())];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: `msghdr` is plain data for which zeroes are valid.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = ROOM as _;
    let flags = libc::MSG_CMSG_CLOEXEC | flags;
    let length = loop {
        // SAFETY: `header` points at `part` and `control`, `part` at `buffer`; all outlive the call and are as long as said.
        let result = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, flags) };
        match Errno::result(result) {
            Ok(length) => break length as usize,
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            Err(error) => return Err(error.into()),
        }
    };
    let mut arrived = Vec::new();
    // SAFETY: the kernel has filled `control` as far as `header.msg_controllen` says; the CMSG functions stay inside it.
    // Each SCM_RIGHTS record holds descriptors that were installed for us by this very call, so we own each once.
    unsafe {
        let mut record = libc::CMSG_FIRSTHDR(&header);
        while !record.is_null() {
            if (*record).cmsg_level == libc::SOL_SOCKET && (*record).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(record).cast::<RawFd>();
                let bytes = (*record).cmsg_len as usize - (data as usize - record as usize);
                for index in 0..bytes / size_of::<RawFd>() {
                    arrived.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            record = libc::CMSG_NXTHDR(&header, record);
        }
    }
    if header.msg_flags & libc::MSG_CTRUNC != 0 {
        // The room above is enough for any packet, so what was missing is room in the table of descriptors.
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    }
    if header.msg_flags & libc::MSG_TRUNC != 0 {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    if length == 0 {
        return Ok(Received::End); // OK because every packet of ours has a header.
    }
    for fd in arrived {
        descriptors.push(above_stdio(fd)?);
    }
    Ok(Received::Packet { length })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// One end goes, with something for it unread, and what it has sent is still there.
    #[test]
    fn what_the_dead_have_sent_arrives() {
        for first in ["receive", "peek", "bare", "send"] {
            let (one, other) = seqpacket_pair().unwrap();
            for number in 0..3 {
                send_packet(one.as_fd(), &[&[number]], &[], false).unwrap();
            }
            send_packet(other.as_fd(), &[&[9]], &[], false).unwrap();
            drop(one);
            let (other, mut buffer, mut fds) = (other.as_fd(), [0; 8], Vec::new());
            match first {
                "peek" => assert!(peek_packet(other, &mut buffer, &mut fds).is_ok()),
                "bare" => assert!(receive_bare(other, &mut buffer, true).is_ok()),
                "send" => {
                    let gone = send_packet(other, &[&[9]], &[], false).unwrap_err();
                    assert_eq!(gone.raw_os_error(), Some(libc::EPIPE));
                }
                _ => {}
            }
            for number in 0..3 {
                let received = receive_packet(other, &mut buffer, &mut fds, false).unwrap();
                assert!(matches!(received, Received::Packet { length: 1 }));
                assert_eq!(buffer[0], number);
            }
            let end = receive_packet(other, &mut buffer, &mut fds, false).unwrap();
            assert!(matches!(end, Received::End));
        }
    }
}
