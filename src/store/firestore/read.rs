//! Reading: single documents and listings.

use super::codec;
use super::connect::Connection;
use super::status;
use crate::store::{Document, Key, Page, Query, Result};
use firestore::gcloud_sdk::google::firestore::v1 as proto;
use firestore::gcloud_sdk::tonic::Status;
use proto::structured_query::filter::FilterType;
use proto::structured_query::{
    CollectionSelector, Direction, FieldFilter, FieldReference, Filter, Order, field_filter::Operator,
};
use proto::value::ValueType;
use std::collections::HashMap;

pub(super) async fn get(connection: &Connection, key: &Key) -> Result<Option<Document>> {
    // BatchGetDocuments says of each document that it is missing. GetDocument answers NOT_FOUND, as for a missing database,
    // which must never be taken for "nobody has paid this yet".
    let read = connection.batch_get(vec![connection.name(key)], None).await?;
    let found = read.found.into_iter().next();
    found.map(|document| codec::document(key.clone(), document)).transpose()
}

pub(super) async fn get_all(connection: &Connection, keys: &[Key]) -> Result<Vec<Option<Document>>> {
    let names: Vec<String> = keys.iter().map(|key| connection.name(key)).collect();
    let read = connection.batch_get(names.clone(), None).await?;
    let mut found: HashMap<String, proto::Document> =
        read.found.into_iter().map(|document| (document.name.clone(), document)).collect();
    let wanted = keys.iter().zip(&names);
    wanted
        .map(|(key, name)| found.remove(name).map(|document| codec::document(key.clone(), document)).transpose())
        .collect()
}

pub(super) async fn list(connection: &Connection, query: &Query) -> Result<Page> {
    let limit = query.limit.clamp(1, 1000);
    let request = request(connection, query, limit);
    let mut found = run(connection, request.clone()).await;
    if found.as_ref().err().is_some_and(status::may_pass) {
        found = run(connection, request).await;
    }
    let mut found = found.map_err(|status| status::unavailable(&status))?;
    let more = found.len() > limit;
    found.truncate(limit);
    let documents = found
        .into_iter()
        .map(|document| {
            let id = document.name.rsplit('/').next().unwrap_or_default().to_owned();
            codec::document(Key { collection: query.collection, id }, document)
        })
        .collect::<Result<Vec<_>>>()?;
    let next = if more { documents.last().map(|d| d.key.id.clone()) } else { None };
    Ok(Page { documents, next })
}

/// Every listing asks for an index entry (all documents have one that says so), in the order of names.
fn request(connection: &Connection, query: &Query, limit: usize) -> proto::RunQueryRequest {
    let entry = query.index.as_ref().map_or_else(|| codec::ALL.to_owned(), codec::entry);
    let direction = if query.descending { Direction::Descending } else { Direction::Ascending };
    let order = Order { field: field("__name__"), direction: direction.into() };
    let start_at = query.after.as_ref().map(|after| {
        let name = ValueType::ReferenceValue(connection.path(query.collection, after));
        proto::Cursor { values: vec![proto::Value { value_type: Some(name) }], before: false }
    });
    let structured = proto::StructuredQuery {
        from: vec![CollectionSelector { collection_id: query.collection.to_owned(), all_descendants: false }],
        r#where: Some(compare(codec::INDEX, Operator::ArrayContains, codec::string(entry))),
        order_by: vec![order],
        start_at,
        // One more than asked for tells whether there is a next page.
        limit: Some(i32::try_from(limit + 1).unwrap_or(i32::MAX)),
        ..Default::default()
    };
    proto::RunQueryRequest {
        parent: connection.documents().to_owned(),
        query_type: Some(proto::run_query_request::QueryType::StructuredQuery(structured)),
        ..Default::default()
    }
}

async fn run(
    connection: &Connection,
    request: proto::RunQueryRequest,
) -> std::result::Result<Vec<proto::Document>, Status> {
    let mut answers = connection.client().run_query(connection.request(request)).await?.into_inner();
    let mut found = Vec::new();
    while let Some(answer) = answers.message().await? {
        found.extend(answer.document);
    }
    connection.count_reads(found.len());
    Ok(found)
}

fn field(path: &str) -> Option<FieldReference> {
    Some(FieldReference { field_path: path.to_owned() })
}

/// `field op value`.
pub(super) fn compare(path: &str, op: Operator, value: proto::Value) -> Filter {
    let filter = FieldFilter { field: field(path), op: op.into(), value: Some(value) };
    Filter { filter_type: Some(FilterType::FieldFilter(filter)) }
}
