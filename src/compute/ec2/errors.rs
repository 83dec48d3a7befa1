//! What EC2's errors mean for whoever asked.

use super::super::ComputeError;
use crate::aws_words::{said, shortened};
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use std::error::Error;
use std::time::Duration;

/// EC2's name for the error, where EC2 has answered.
pub(super) fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Option<&str> {
    match error {
        SdkError::ServiceError(answered) => answered.err().code(),
        _ => None,
    }
}

/// What became of a request that failed.
pub(super) fn failed<E, R>(error: &SdkError<E, R>) -> ComputeError
where
    E: ProvideErrorMetadata + Error + 'static,
    R: std::fmt::Debug + 'static,
{
    match error {
        SdkError::ServiceError(answered) => {
            let error = answered.err();
            meaning(error.code().unwrap_or_default(), error.message().unwrap_or_default())
        }
        // Nothing to sign it with, which the SDK tells by its words alone: the error's type is of a crate below.
        SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) if said(error).contains("credential") => {
            ComputeError::Denied(said(error))
        }
        _ => ComputeError::Unknown(said(error)),
    }
}

/// By code. What we do not know is taken for unknown, which is asked again and never for another one.
fn meaning(code: &str, message: &str) -> ComputeError {
    let said = format!("{code}: {}", shortened(message));
    match code {
        "InsufficientInstanceCapacity"
        | "InsufficientHostCapacity"
        | "InsufficientReservedInstanceCapacity"
        | "InsufficientFreeAddressesInSubnet"
        | "Unsupported" => ComputeError::NoCapacity(said),
        "InstanceLimitExceeded" | "VcpuLimitExceeded" | "VolumeLimitExceeded" | "MaxIOPSLimitExceeded" => {
            ComputeError::Quota(said)
        }
        "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "RequestThrottled"
        | "EC2ThrottledException" => ComputeError::Throttled { after: Duration::ZERO },
        "UnauthorizedOperation"
        | "AuthFailure"
        | "AccessDenied"
        | "AccessDeniedException"
        | "OptInRequired"
        | "Blocked"
        | "PendingVerification"
        | "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
        | "RequestExpired"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "MissingAuthenticationToken"
        | "UnrecognizedClientException" => ComputeError::Denied(said),
        "IdempotentInstanceTerminated" => ComputeError::Spent,
        "IdempotentParameterMismatch" => ComputeError::Mismatch,
        _ if code.starts_with("Invalid") || code.starts_with("Missing") || code.starts_with("Malformed") => {
            ComputeError::Refused(said)
        }
        "UnknownParameter" | "VPCIdNotSpecified" | "ParameterNotAllowed" => ComputeError::Refused(said),
        _ => ComputeError::Unknown(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_mean_what_they_say() {
        let of = |code: &str| meaning(code, "because");
        assert!(matches!(of("InsufficientInstanceCapacity"), ComputeError::NoCapacity(_)));
        assert!(matches!(of("RequestLimitExceeded"), ComputeError::Throttled { .. }));
        assert!(matches!(of("InvalidLaunchTemplateId.NotFoundException"), ComputeError::Refused(_)));
        assert!(matches!(of("VcpuLimitExceeded"), ComputeError::Quota(_)));
        assert_eq!(of("IdempotentParameterMismatch"), ComputeError::Mismatch);
        assert_eq!(of("IdempotentInstanceTerminated"), ComputeError::Spent);
        for unknown in ["InternalError", "Unavailable", "ServiceUnavailable", "RequestTimeout", ""] {
            assert!(matches!(of(unknown), ComputeError::Unknown(_)), "{unknown}");
        }
        let ComputeError::Denied(said) = meaning("UnauthorizedOperation", &"x".repeat(5000)) else { panic!("denied") };
        assert!(said.starts_with("UnauthorizedOperation: xxx") && said.len() < 400, "{said}");
    }
}
