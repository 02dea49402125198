//! One connection, used by many threads, whose changes share syncs.
//!
//! A thread that has made its change looks whether others wait for the connection. If so it leaves the transaction open
//! for them and waits; the last one commits for all. So a change alone is synced at once, and many at a time cost one
//! sync together. A change that fails is undone alone (savepoint); a commit that fails, fails for all in it.
//!
//! Always: nobody is told that a change is made before it is on disk. A reader may see a change whose sync is still
//! under way.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use rusqlite::Connection;

use super::RegistryError;

/// Most changes in one transaction, so that the first of them does not wait long.
const GROUP_MAX: usize = 64;

/// The connection with its open transaction.
pub(super) struct Books {
    open: Mutex<Open>,
    /// Threads that want to change something and do not have the connection yet.
    waiting: AtomicUsize,
    committed: Condvar,
}

struct Open {
    connection: Connection,
    /// The changes in the open transaction; none when there is no transaction.
    group: Option<Arc<Group>>,
    size: usize,
}

/// Changes that are committed together.
#[derive(Default)]
struct Group {
    /// Set once: nothing, or why the commit failed.
    outcome: OnceLock<Option<String>>,
}

impl Books {
    pub(super) fn new(connection: Connection) -> Self {
        let open = Open { connection, group: None, size: 0 };
        Self { open: Mutex::new(open), waiting: AtomicUsize::new(0), committed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Panics of changes are caught, so a poisoned lock still holds a good connection.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        query(&self.lock().connection)
    }

    pub(super) fn write<T, E: From<RegistryError>>(
        &self,
        change: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut open = self.lock();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        let changed = catch_unwind(AssertUnwindSafe(|| open.change(change)));
        let group = open.group.clone();
        if self.waiting.load(Ordering::SeqCst) == 0 || open.size >= GROUP_MAX {
            open.commit();
            self.committed.notify_all();
        }
        let value = match changed {
            Ok(Ok(value)) => value,
            Ok(Err(error)) => return Err(error),
            Err(panic) => {
                drop(open);
                resume_unwind(panic)
            }
        };
        // Whoever still waits for the connection ends this group, at the latest.
        let Some(group) = group else { return Ok(value) };
        loop {
            match group.outcome.get() {
                Some(None) => return Ok(value),
                Some(Some(reason)) => return Err(RegistryError::Store(reason.clone().into()).into()),
                None => open = self.committed.wait(open).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl Open {
    /// Makes one change in the open transaction, or in a new one.
    fn change<T, E: From<RegistryError>>(
        &mut self,
        change: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        if self.group.is_some() && self.connection.is_autocommit() {
            // SQLite undoes a whole transaction by itself when the disk is full or broken.
            self.end(Some("the transaction was undone".to_owned()));
        }
        let run = |connection: &Connection, sql| {
            connection.prepare_cached(sql).and_then(|mut sql| sql.execute([])).map_err(RegistryError::from)
        };
        if self.group.is_none() {
            run(&self.connection, "BEGIN IMMEDIATE")?;
            self.group = Some(Arc::default());
            self.size = 0;
        }
        self.size += 1;
        run(&self.connection, "SAVEPOINT change")?;
        let undo = Undo { connection: &self.connection, armed: true };
        let value = change(&self.connection)?;
        undo.disarm();
        run(&self.connection, "RELEASE change")?;
        Ok(value)
    }

    fn commit(&mut self) {
        if self.group.is_none() {
            return;
        }
        let committed = if self.connection.is_autocommit() {
            Some("the transaction was undone".to_owned())
        } else {
            self.connection.execute_batch("COMMIT").err().map(|error| error.to_string())
        };
        if committed.is_some() && !self.connection.is_autocommit() {
            // A commit that failed leaves its transaction open; what is in it was promised to nobody.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        self.end(committed);
    }

    fn end(&mut self, outcome: Option<String>) {
        if let Some(group) = self.group.take() {
            let _ = group.outcome.set(outcome);
        }
        self.size = 0;
    }
}

/// Undoes a change that fails or panics, and leaves the others in the transaction as they are.
struct Undo<'a> {
    connection: &'a Connection,
    armed: bool,
}

impl Undo<'_> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if self.armed && self.connection.execute_batch("ROLLBACK TO change; RELEASE change").is_err() {
            // Without its savepoint the whole transaction goes: nobody in it has been answered yet.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    fn books(folder: &tempfile::TempDir) -> Books {
        let connection = Connection::open(folder.path().join("books.db")).expect("file");
        connection.pragma_update(None, "journal_mode", "WAL").expect("log");
        connection.execute_batch("CREATE TABLE entries (value INTEGER UNIQUE)").expect("table");
        Books::new(connection)
    }

    fn add(books: &Books, value: i64) -> Result<(), RegistryError> {
        books.write(|connection| {
            connection.execute("INSERT INTO entries VALUES (?1)", [value])?;
            Ok(())
        })
    }

    fn count(books: &Books) -> i64 {
        let read = |connection: &Connection| {
            Ok(connection.query_row("SELECT count(*) FROM entries", [], |row| row.get(0))?)
        };
        books.read(read).expect("count")
    }

    #[test]
    fn changes_of_many_threads_are_all_made_and_a_failed_one_is_undone_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let (books, start) = (books(&folder), Barrier::new(8));

        std::thread::scope(|scope| {
            for thread in 0..8_i64 {
                let (books, start) = (&books, &start);
                scope.spawn(move || {
                    start.wait();
                    for number in 0..50 {
                        add(books, thread * 50 + number).expect("add");
                        let twice: Result<(), RegistryError> = books.write(|connection| {
                            connection
                                .execute("INSERT INTO entries VALUES (?1)", [-thread * 50 - number - 1])?;
                            connection.execute("INSERT INTO entries VALUES (?1)", [thread * 50 + number])?;
                            Ok(())
                        });
                        assert!(twice.is_err());
                    }
                });
            }
        });

        assert_eq!(count(&books), 400);
        assert!(books.lock().connection.is_autocommit(), "nothing is left open");
    }

    #[test]
    fn a_change_that_panics_is_undone_and_the_next_one_goes_on() {
        let folder = tempfile::tempdir().expect("folder");
        let books = books(&folder);

        let panicked = catch_unwind(AssertUnwindSafe(|| {
            books.write(|connection| -> Result<(), RegistryError> {
                connection.execute("INSERT INTO entries VALUES (1)", [])?;
                panic!("in the middle of a change")
            })
        }));

        assert!(panicked.is_err());
        assert_eq!(count(&books), 0);
        add(&books, 1).expect("add");
        assert_eq!(count(&books), 1);
    }
}
