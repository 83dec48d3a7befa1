//! What AWS's clients say of their failures, as we tell it.

use std::error::Error;

/// Of a message, characters: EC2's can hold whole policies, encoded.
const LONGEST_MESSAGE: usize = 300;

/// A message that is not too long for an answer or a log.
pub fn shortened(message: &str) -> &str {
    let end = message.char_indices().nth(LONGEST_MESSAGE).map_or(message.len(), |(at, _)| at);
    message.get(..end).unwrap_or_default()
}

/// The error with all its reasons, shortened.
pub fn said(error: &(dyn Error + 'static)) -> String {
    let (mut all, mut next) = (error.to_string(), error.source());
    while let Some(source) = next {
        all = format!("{all}: {source}");
        next = source.source();
    }
    shortened(&all).to_owned()
}
