//! Pools and flavors.

use isimud_contract::{
    Error, ErrorKind, Flavor, FlavorName, MembershipChange, Pool, PoolName, PoolRecord, ProjectId,
    Resource, read_metadata,
};
use rusqlite::{OptionalExtension, Row, params};

use crate::queue::{damaged, first_version, json};
use crate::session::Session;
use crate::worker_thread::Outcome;

const COLUMNS: &str = "name, uri, weight, flavor, options, version";

fn read(row: &Row<'_>) -> rusqlite::Result<PoolRecord> {
    let name = row.get_ref(0)?.as_str()?;
    let flavor = row.get_ref(3)?.as_str_or_null()?;
    let options = row.get_ref(4)?.as_str()?;
    Ok(PoolRecord {
        pool: Pool {
            name: PoolName::parse(name).map_err(|error| damaged(0, error))?,
            uri: row.get(1)?,
            weight: row.get(2)?,
            flavor: flavor
                .map(FlavorName::parse)
                .transpose()
                .map_err(|error| damaged(3, error))?,
            options: read_metadata(options).map_err(|error| damaged(4, error))?,
        },
        version: row.get::<_, i64>(5)?.unsigned_abs(),
    })
}

pub(crate) fn save(
    session: &mut Session,
    pool: &Pool,
    version: Option<u64>,
) -> Outcome<Option<u64>> {
    let (sql, next) = match version {
        None => (
            "INSERT OR IGNORE INTO pool (name, uri, weight, flavor, options, version)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            first_version(),
        ),
        Some(version) => match i64::try_from(version) {
            Ok(version) if version < i64::MAX => (
                "UPDATE pool SET uri = ?2, weight = ?3, flavor = ?4, options = ?5, version = ?6
                 WHERE name = ?1 AND version = ?6 - 1",
                version + 1,
            ),
            _ => return Ok(Ok(None)),
        },
    };
    let saved = session.statement(sql)?.execute(params![
        pool.name.as_str(),
        pool.uri,
        pool.weight,
        pool.flavor.as_ref().map(FlavorName::as_str),
        json(&pool.options)?,
        next,
    ])?;
    Ok(Ok((saved == 1).then_some(next.unsigned_abs())))
}

pub(crate) fn find(session: &mut Session, name: &PoolName) -> Outcome<Option<PoolRecord>> {
    record(session, name).map(Ok)
}

fn record(session: &Session, name: &PoolName) -> rusqlite::Result<Option<PoolRecord>> {
    session
        .statement(&format!("SELECT {COLUMNS} FROM pool WHERE name = ?"))?
        .query_row([name.as_str()], read)
        .optional()
}

pub(crate) fn list(
    session: &mut Session,
    after: Option<&str>,
    limit: usize,
) -> Outcome<Vec<PoolRecord>> {
    let found = session
        .statement(&format!(
            "SELECT {COLUMNS} FROM pool WHERE name > ? ORDER BY name LIMIT ?"
        ))?
        .query_map(params![after.unwrap_or_default(), most(limit)], read)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Ok(found))
}

/// A limit as a column.
pub(crate) fn most(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(crate) fn delete(session: &mut Session, name: &PoolName) -> Outcome<bool> {
    let Some(PoolRecord { pool, .. }) = record(session, name)? else {
        return Ok(Ok(false));
    };
    if let Some(flavor) = &pool.flavor
        && owner(session, flavor)?.is_some()
    {
        let others: bool = session
            .statement("SELECT EXISTS (SELECT 1 FROM pool WHERE flavor = ? AND name <> ?)")?
            .query_row([flavor.as_str(), name.as_str()], |row| row.get(0))?;
        if !others {
            let in_use = ErrorKind::InUse(Resource::Flavor);
            let error = Error::new(in_use, "the pool is the last one of a flavor");
            return Ok(Err(error.with("flavor", flavor)));
        }
    }
    session
        .statement("DELETE FROM pool WHERE name = ?")?
        .execute([name.as_str()])?;
    Ok(Ok(true))
}

pub(crate) fn save_flavor(
    session: &mut Session,
    flavor: &Flavor,
    pools: &[PoolName],
    members: MembershipChange,
) -> Outcome<()> {
    let name = &flavor.name;
    if owner(session, name)?.is_some_and(|owner| owner != flavor.project) {
        let taken = ErrorKind::AlreadyExists(Resource::Flavor);
        return Ok(Err(Error::new(taken, "another project has that flavor")));
    }
    for pool in pools {
        if record(session, pool)?.is_none() {
            return Ok(Err(Error::not_found(Resource::Pool).with("pool", pool)));
        }
    }
    session
        .statement("INSERT OR IGNORE INTO flavor (name, project) VALUES (?, ?)")?
        .execute([name.as_str(), flavor.project.as_str()])?;
    if members == MembershipChange::Replace {
        let present: Vec<PoolName> = members_of(session, name)?;
        for pool in present.iter().filter(|pool| !pools.contains(pool)) {
            assign(session, pool, None)?;
        }
    }
    for pool in pools {
        assign(session, pool, Some(name))?;
    }
    Ok(Ok(()))
}

fn members_of(session: &Session, flavor: &FlavorName) -> rusqlite::Result<Vec<PoolName>> {
    session
        .statement("SELECT name FROM pool WHERE flavor = ?")?
        .query_map([flavor.as_str()], |row| {
            PoolName::parse(row.get_ref(0)?.as_str()?).map_err(|error| damaged(0, error))
        })?
        .collect()
}

/// Has a pool belong to a flavor, or to none. One that does already keeps its version.
fn assign(session: &Session, pool: &PoolName, flavor: Option<&FlavorName>) -> rusqlite::Result<()> {
    session
        .statement(
            "UPDATE pool SET flavor = ?1, version = version + 1 WHERE name = ?2 AND flavor IS NOT ?1",
        )?
        .execute(params![flavor.map(FlavorName::as_str), pool.as_str()])
        .map(drop)
}

fn owner(session: &Session, name: &FlavorName) -> rusqlite::Result<Option<ProjectId>> {
    session
        .statement("SELECT project FROM flavor WHERE name = ?")?
        .query_row([name.as_str()], |row| {
            ProjectId::parse(row.get_ref(0)?.as_str()?).map_err(|error| damaged(0, error))
        })
        .optional()
}

pub(crate) fn find_flavor(session: &mut Session, name: &FlavorName) -> Outcome<Option<Flavor>> {
    let owner = owner(session, name)?;
    Ok(Ok(owner.map(|project| Flavor {
        name: name.clone(),
        project,
    })))
}

pub(crate) fn list_flavors(
    session: &mut Session,
    project: &ProjectId,
    after: Option<&str>,
    limit: usize,
) -> Outcome<Vec<Flavor>> {
    let read = |row: &Row<'_>| {
        let name = row.get_ref(0)?.as_str()?;
        Ok(Flavor {
            name: FlavorName::parse(name).map_err(|error| damaged(0, error))?,
            project: project.clone(),
        })
    };
    let found = session
        .statement("SELECT name FROM flavor WHERE project = ? AND name > ? ORDER BY name LIMIT ?")?
        .query_map(
            params![project.as_str(), after.unwrap_or_default(), most(limit)],
            read,
        )?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Ok(found))
}

pub(crate) fn delete_flavor(
    session: &mut Session,
    project: &ProjectId,
    name: &FlavorName,
) -> Outcome<bool> {
    let deleted = session
        .statement("DELETE FROM flavor WHERE name = ? AND project = ?")?
        .execute([name.as_str(), project.as_str()])?;
    if deleted == 1 {
        for pool in members_of(session, name)? {
            assign(session, &pool, None)?;
        }
    }
    Ok(Ok(deleted == 1))
}
