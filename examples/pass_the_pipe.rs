//! Questions through a queue, each with the pipe for its answer.
//!
//! ```text
//! cargo run --example pass_the_pipe
//! ```
//!
//! prints, in any order,
//!
//! ```text
//! Process-2 asked for 2 * 2: 4
//! Process-3 asked for 3 * 3: 9
//! Process-4 asked for 4 * 4: 16
//! ```
//!
//! The end of a pipe is a value like any other, also inside a struct inside a queue. It moves: the client that put it into the
//! queue has it no longer, the server that took it out has it alone. So a client whose question is lost, because the server
//! died with it, sees the end of its pipe and does not wait for ever.
//!
//! In Python: <https://docs.python.org/3/library/multiprocessing.html#connection-objects>, which go through queues, too,
//! by a background thread of the sender, which has to live until they arrive

use mproc::{Failure, Queue, Sender};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Question {
    number: u64,
    answer: Sender<u64>,
}

#[mproc::entry]
fn server(questions: &Queue<Question>) -> Result<(), Failure> {
    for question in questions {
        let Question { number, mut answer } = question?;
        answer.send(number * number)?;
    }
    Ok(())
}

#[mproc::entry]
fn client(number: u64, questions: &Queue<Question>) -> Result<(), Failure> {
    let (sender, mut answer) = mproc::pipe()?;
    questions.put(Question {
        number,
        answer: sender,
    })?;

    let name = mproc::current_process().name();
    println!("{name} asked for {number} * {number}: {}", answer.recv()?);
    Ok(())
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        let questions = Queue::new()?;
        let server = server::spawn(&questions)?;

        let mut clients = Vec::new();
        for number in 2..=4 {
            clients.push(client::spawn(number, &questions)?);
        }
        for client in clients {
            client.join()??;
        }

        questions.close();
        server.join()?
    }
}
