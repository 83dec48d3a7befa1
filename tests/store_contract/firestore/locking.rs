//! Looks at the emulator past our own code, in a transaction that locks what it reads.

use super::THINGS;
use firestore::gcloud_sdk::google::firestore::v1 as proto;
use firestore::gcloud_sdk::tonic::transport::Channel;
use firestore::gcloud_sdk::tonic::{Code, Status};
use proto::firestore_client::FirestoreClient;
use proto::run_query_request::{ConsistencySelector, QueryType};
use proto::structured_query::CollectionSelector;
use proto::value::ValueType;

type Client = FirestoreClient<Channel>;

/// The numbers `n` of all things. Asked again where the transaction lost against a commit.
pub(super) async fn numbers(url: &str, project: &str) -> Vec<u64> {
    let mut client = FirestoreClient::connect(url.to_owned()).await.unwrap();
    let database = format!("projects/{project}/databases/(default)");
    loop {
        match locked(&mut client, &database).await {
            Ok(numbers) => return numbers,
            Err(status) if status.code() == Code::Aborted => {}
            Err(status) => panic!("{status:?}"),
        }
    }
}

async fn locked(client: &mut Client, database: &str) -> Result<Vec<u64>, Status> {
    let begin = proto::BeginTransactionRequest { database: database.to_owned(), ..Default::default() };
    let transaction = client.begin_transaction(begin).await?.into_inner().transaction;
    let found = query(client, database, transaction.clone()).await;
    // What is locked would hold up the commits for long.
    let rollback = proto::RollbackRequest { database: database.to_owned(), transaction, ..Default::default() };
    let rolled_back = client.rollback(rollback).await;
    let found = found?;
    rolled_back.map(|_| found)
}

async fn query(client: &mut Client, database: &str, transaction: Vec<u8>) -> Result<Vec<u64>, Status> {
    let from = vec![CollectionSelector { collection_id: THINGS.to_owned(), all_descendants: false }];
    let all = proto::StructuredQuery { from, ..Default::default() };
    let request = proto::RunQueryRequest {
        parent: format!("{database}/documents"),
        query_type: Some(QueryType::StructuredQuery(all)),
        consistency_selector: Some(ConsistencySelector::Transaction(transaction)),
        ..Default::default()
    };
    let mut answers = client.run_query(request).await?.into_inner();
    let mut numbers = Vec::new();
    while let Some(answer) = answers.message().await? {
        numbers.extend(answer.document.as_ref().map(number));
    }
    Ok(numbers)
}

fn number(document: &proto::Document) -> u64 {
    match document.fields["n"].value_type {
        Some(ValueType::IntegerValue(n)) => n.try_into().unwrap(),
        ref other => panic!("{other:?}"),
    }
}
