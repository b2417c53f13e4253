//! Table options in CREATE and ALTER TABLE. Postgres refuses those that it doesn't know.
//!
//! * CREATE: ours are taken off the statement and put into `pg_class` as soon as the table's row is
//!   there: before the statement fills the table, and before event triggers look at it.
//! * ALTER: Postgres validates the whole array, so a RESET of those that the table has comes before
//!   what the statement says, and they are put back, changed as it says, when it is done. All of that
//!   is one transaction's doing; only triggers of the very command see the table without them. Where
//!   the table has none and the statement names none, it runs as it is.
//!
//! Options of tables with another access method are left to Postgres, and so are those of
//! partitioned tables, which can't have any.

use super::utility::{range_var, tag};
use crate::catalog::options as catalog;
use crate::catalog::{layout, publication, storage};
use crate::pg::options_array::Change;
use crate::{am, error, pg};
use pgrx::{PgList, pg_sys};
use std::cell::RefCell;
use std::ffi::CStr;

/// What is left to do when a statement has run. Its lists live as long as the statement.
#[derive(Clone, Copy)]
pub enum Set {
    Nothing,
    Created,
    Altered {
        relid: pg_sys::Oid,
        /// What it had before.
        had: *mut pg_sys::List,
        /// The statement's commands with nothing but our options.
        commands: *mut pg_sys::List,
    },
}

/// A statement that creates a table, while it runs.
struct Creating {
    subid: pg_sys::SubTransactionId,
    /// What it creates, if that is an iceberg table.
    wanted: Option<Wanted>,
    /// Whether that table is there.
    created: bool,
}

#[derive(Clone, Copy)]
struct Wanted {
    name: *mut pg_sys::RangeVar,
    options: *mut pg_sys::List,
}

thread_local! {
    /// Outermost first: a trigger on one statement may run others.
    static CREATING: RefCell<Vec<Creating>> = const { RefCell::new(Vec::new()) };
}

/// Whether [`before`] is going to change a statement's tree.
///
/// # Safety
/// A statement that is about to run.
pub unsafe fn concerns(statement: *mut pg_sys::Node) -> bool {
    // SAFETY: by contract.
    unsafe {
        match creation(statement) {
            Some(table) => {
                !catalog::split(*table.options).ours.is_null() && table.will_be_iceberg()
            }
            None => alteration(statement).is_some(),
        }
    }
}

/// Takes our options off a statement and checks them.
///
/// # Safety
/// A statement that is about to run, a copy if [`concerns`] says so.
pub unsafe fn before(statement: *mut pg_sys::Node) -> Set {
    // SAFETY: by contract.
    unsafe {
        if let Some(table) = creation(statement) {
            let wanted = table.will_be_iceberg().then(|| {
                let split = catalog::split(*table.options);
                if !split.ours.is_null() {
                    catalog::check(split.ours);
                    *table.options = split.others;
                }
                Wanted {
                    name: table.name,
                    options: split.ours,
                }
            });
            let creating = Creating {
                subid: pg_sys::GetCurrentSubTransactionId(),
                wanted,
                created: false,
            };
            CREATING.with_borrow_mut(|all| all.push(creating));
            return Set::Created;
        }
        match alteration(statement) {
            Some(alter) => before_alter(alter),
            None => Set::Nothing,
        }
    }
}

/// Does what is left.
///
/// # Safety
/// What [`before`] returned for the statement, which has run.
pub unsafe fn after(set: Set) {
    match set {
        Set::Nothing => {}
        Set::Created => {
            CREATING.with_borrow_mut(Vec::pop);
        }
        Set::Altered {
            relid,
            had,
            commands,
        } => {
            // SAFETY: the statement has locked the relation.
            unsafe {
                pg_sys::CommandCounterIncrement();
                // Of a table that has got another access method they are gone.
                if am::has_iceberg_am(relid) {
                    let mut changes = vec![Change {
                        list: had,
                        reset: false,
                    }];
                    for command in PgList::<pg_sys::AlterTableCmd>::from_pg(commands).iter_ptr() {
                        changes.push(Change {
                            list: (*command).def.cast(),
                            reset: (*command).subtype == pg_sys::AlterTableType::AT_ResetRelOptions,
                        });
                    }
                    apply(relid, &changes);
                }
            }
        }
    }
}

/// Forgets the statements of a subtransaction that is rolled back, or all.
pub fn abort(subid: Option<pg_sys::SubTransactionId>) {
    CREATING.with_borrow_mut(|all| all.retain(|one| subid.is_some_and(|subid| one.subid < subid)));
}

/// Gives a new relation the options of the statement that has created it.
///
/// # Safety
/// `heap_create_with_catalog` (catalog/heap.c) has just made the relation, holds its strongest lock,
/// and is ready for the relation cache to read it anew.
pub unsafe fn created(relid: pg_sys::Oid) {
    let running = CREATING.with_borrow(|all| all.last().map(|one| (one.wanted, one.created)));
    let Some((Some(wanted), false)) = running else {
        return;
    };
    // SAFETY: by contract. A statement that makes a sequence, too, makes it before the table, and with
    // another name, since they are in one schema.
    unsafe {
        pg_sys::CommandCounterIncrement();
        let name = pg_sys::get_rel_name(relid);
        let is_it = !name.is_null()
            && CStr::from_ptr(name) == CStr::from_ptr((*wanted.name).relname)
            && has_options_of_heap(relid)
            && am::has_iceberg_am(relid);
        if !is_it {
            return;
        }
        CREATING.with_borrow_mut(|all| {
            if let Some(one) = all.last_mut() {
                one.created = true;
            }
        });
        if !wanted.options.is_null() {
            let set = Change {
                list: wanted.options,
                reset: false,
            };
            apply(relid, &[set]);
        }
    }
}

/// Views and partitioned tables have others, or none.
unsafe fn has_options_of_heap(relid: pg_sys::Oid) -> bool {
    // SAFETY: a syscache look-up.
    matches!(
        unsafe { pg_sys::get_rel_relkind(relid) } as u8,
        pg_sys::RELKIND_RELATION | pg_sys::RELKIND_MATVIEW
    )
}

/// Changes the options of a locked iceberg table, and what follows from them.
unsafe fn apply(relid: pg_sys::Oid, changes: &[Change]) {
    // SAFETY: by contract.
    unsafe {
        catalog::change(relid, changes);
        pg_sys::CommandCounterIncrement();
        let options = catalog::of(relid);
        let version = options
            .format_version
            .unwrap_or(storage::DEFAULT_FORMAT_VERSION);
        let rel = pg_sys::table_open(relid, pg_sys::NoLock as i32);
        layout::check(rel, &options);
        if let Some(storage) = storage::of_relation(rel)
            && storage.format_version != version
        {
            if storage.format_version > version && publication::find(storage.id).is_some() {
                error::unsupported(
                    &format!(
                        "cannot lower the format version of iceberg table \"{}\", which has been published",
                        pg::relation_name(rel)
                    ),
                    "Load the rows into a new table.",
                );
            }
            storage::set_format_version(&storage, version);
            pg_sys::CommandCounterIncrement();
        }
        pg_sys::table_close(rel, pg_sys::NoLock as i32);
    }
}

/// The parts of a statement that creates a table.
struct Creation {
    name: *mut pg_sys::RangeVar,
    /// Where the list is.
    options: *mut *mut pg_sys::List,
    access_method: *const std::ffi::c_char,
    /// Of a partition.
    parent: *mut pg_sys::RangeVar,
    is_partitioned: bool,
}

impl Creation {
    /// As `DefineRelation` (commands/tablecmds.c) finds the access method.
    unsafe fn will_be_iceberg(&self) -> bool {
        if self.is_partitioned {
            return false;
        }
        // SAFETY: a parsed name.
        unsafe {
            if self.access_method.is_null() && !self.parent.is_null() {
                let parent = range_var(self.parent);
                if parent != pg_sys::InvalidOid
                    && pg_sys::get_rel_relam(parent) != pg_sys::InvalidOid
                {
                    return am::has_iceberg_am(parent);
                }
            }
            is_named_iceberg(self.access_method)
        }
    }
}

/// Whether the name of an access method, null for the default one, is ours.
unsafe fn is_named_iceberg(name: *const std::ffi::c_char) -> bool {
    // SAFETY: a parsed name, or the value of a setting.
    unsafe {
        let name = if name.is_null() {
            pg_sys::default_table_access_method.cast_const()
        } else {
            name
        };
        let iceberg = pg::iceberg_am();
        iceberg != pg_sys::InvalidOid && pg_sys::get_am_oid(name, true) == iceberg
    }
}

/// Takes a statement that creates a table apart; EXPLAIN ANALYZE of one is one.
unsafe fn creation(statement: *mut pg_sys::Node) -> Option<Creation> {
    // SAFETY: the tag says what the node is.
    unsafe {
        match tag(statement) {
            pg_sys::NodeTag::T_CreateStmt => {
                let create = statement.cast::<pg_sys::CreateStmt>();
                let parents = PgList::<pg_sys::RangeVar>::from_pg((*create).inhRelations);
                let parent = parents
                    .get_ptr(0)
                    .filter(|_| !(*create).partbound.is_null())
                    .unwrap_or(std::ptr::null_mut());
                Some(Creation {
                    name: (*create).relation,
                    options: &raw mut (*create).options,
                    access_method: (*create).accessMethod,
                    parent,
                    is_partitioned: !(*create).partspec.is_null(),
                })
            }
            pg_sys::NodeTag::T_CreateTableAsStmt => {
                let into = (*statement.cast::<pg_sys::CreateTableAsStmt>()).into;
                Some(Creation {
                    name: (*into).rel,
                    options: &raw mut (*into).options,
                    access_method: (*into).accessMethod,
                    parent: std::ptr::null_mut(),
                    is_partitioned: false,
                })
            }
            pg_sys::NodeTag::T_ExplainStmt => {
                let query = (*statement.cast::<pg_sys::ExplainStmt>()).query;
                if tag(query) != pg_sys::NodeTag::T_Query {
                    return None;
                }
                let explained = (*query.cast::<pg_sys::Query>()).utilityStmt;
                if explained.is_null() {
                    return None;
                }
                creation(explained)
            }
            _ => None,
        }
    }
}

/// An ALTER TABLE that concerns options of an iceberg table.
struct Alteration {
    statement: *mut pg_sys::AlterTableStmt,
    /// Whether it is one when the statement has run.
    will_be_iceberg: bool,
}

unsafe fn alteration(statement: *mut pg_sys::Node) -> Option<Alteration> {
    // SAFETY: the tag says what the node is.
    unsafe {
        // Postgres says what it has against a transaction that only reads.
        if tag(statement) != pg_sys::NodeTag::T_AlterTableStmt || pg_sys::XactReadOnly {
            return None;
        }
        let statement = statement.cast::<pg_sys::AlterTableStmt>();
        let mut concerns_options = false;
        let mut access_method = None;
        for command in PgList::<pg_sys::AlterTableCmd>::from_pg((*statement).cmds).iter_ptr() {
            match (*command).subtype {
                pg_sys::AlterTableType::AT_SetRelOptions
                | pg_sys::AlterTableType::AT_ResetRelOptions => concerns_options = true,
                pg_sys::AlterTableType::AT_SetAccessMethod => {
                    access_method = Some((*command).name);
                }
                _ => {}
            }
        }
        if !concerns_options && access_method.is_none() {
            return None;
        }
        let relid = range_var((*statement).relation);
        if relid == pg_sys::InvalidOid || !has_options_of_heap(relid) {
            return None;
        }
        let is_iceberg = am::has_iceberg_am(relid);
        let will_be_iceberg = access_method.map_or(is_iceberg, |name| is_named_iceberg(name));
        (is_iceberg || will_be_iceberg).then_some(Alteration {
            statement,
            will_be_iceberg,
        })
    }
}

unsafe fn before_alter(alter: Alteration) -> Set {
    use pg_sys::AlterTableType::{AT_ResetRelOptions, AT_SetRelOptions};
    // SAFETY: a copy of a parsed statement.
    unsafe {
        let mut others = std::ptr::null_mut();
        let mut ours = std::ptr::null_mut();
        let mut lock = pg_sys::ShareUpdateExclusiveLock as i32;
        for command in PgList::<pg_sys::AlterTableCmd>::from_pg((*alter.statement).cmds).iter_ptr()
        {
            let is_set = (*command).subtype == AT_SetRelOptions;
            let changes = is_set || (*command).subtype == AT_ResetRelOptions;
            // What a table may not have when it isn't ours any more is for Postgres to refuse.
            if !(changes && alter.will_be_iceberg) {
                others = pg_sys::lappend(others, command.cast());
                continue;
            }
            let split = catalog::split((*command).def.cast());
            if catalog::has_format_version(split.ours) {
                // Nobody publishes meanwhile.
                lock = pg_sys::AccessExclusiveLock as i32;
            }
            if !split.ours.is_null() {
                let own = pg_sys::copyObjectImpl(command.cast()).cast::<pg_sys::AlterTableCmd>();
                (*own).def = split.ours.cast();
                ours = pg_sys::lappend(ours, own.cast());
            }
            if is_set {
                catalog::check(split.ours);
                // Without options it would be nothing, under the strongest lock.
                if split.others.is_null() {
                    continue;
                }
                (*command).def = split.others.cast();
            }
            // A RESET of what isn't there does no harm.
            others = pg_sys::lappend(others, command.cast());
        }
        // Postgres does the same in a moment: the rights are checked, and the lock is there before
        // the options are read.
        let lock = lock.max(pg_sys::AlterTableGetLockLevel(others));
        let relid = pg_sys::AlterTableLookupRelation(alter.statement, lock);
        if relid == pg_sys::InvalidOid {
            return Set::Nothing;
        }
        let had = catalog::list(relid);
        if had.is_null() && ours.is_null() {
            return Set::Nothing;
        }
        // Event triggers are to hear of a statement of which nothing else is left.
        if !had.is_null() || others.is_null() {
            others = take_off(others);
        }
        (*alter.statement).cmds = others;
        Set::Altered {
            relid,
            had,
            commands: ours,
        }
    }
}

/// Has a RESET take all of ours off before Postgres validates the others: the statement's own if one
/// comes first, since it may take off what isn't valid.
unsafe fn take_off(commands: *mut pg_sys::List) -> *mut pg_sys::List {
    use pg_sys::AlterTableType::{AT_ResetRelOptions, AT_SetRelOptions};
    // SAFETY: a list of commands.
    unsafe {
        let first = PgList::<pg_sys::AlterTableCmd>::from_pg(commands)
            .iter_ptr()
            .find(|command| [AT_SetRelOptions, AT_ResetRelOptions].contains(&(**command).subtype));
        if let Some(reset) = first.filter(|command| (**command).subtype == AT_ResetRelOptions) {
            let all = pg_sys::list_concat_copy((*reset).def.cast::<pg_sys::List>(), catalog::all());
            (*reset).def = all.cast();
            return commands;
        }
        let reset =
            pg_sys::palloc0(size_of::<pg_sys::AlterTableCmd>()).cast::<pg_sys::AlterTableCmd>();
        (*reset).type_ = pg_sys::NodeTag::T_AlterTableCmd;
        (*reset).subtype = AT_ResetRelOptions;
        (*reset).def = catalog::all().cast();
        pg_sys::lcons(reset.cast(), commands)
    }
}
