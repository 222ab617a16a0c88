"""Certificates: proofs in ball arithmetic of fixed points and gradients, and the bits that torch gets right."""

from verify.certificate.answers import Answer as Answer, Finding as Finding
from verify.certificate.certificate import (
    Certificate as Certificate,
    CertificateError as CertificateError,
    LeafBits as LeafBits,
    read_certificate as read_certificate,
)
from verify.certificate.certify import certify as certify, certify_source as certify_source
from verify.certificate.kernel.check import recheck as recheck
from verify.certificate.kernel.numbers import Failed as Failed
from verify.certificate.sets import SetCertificate as SetCertificate, certify_set as certify_set
from verify.certificate.settings import Settings as Settings
from verify.certificate.source import Source as Source, SourceError as SourceError, source_from as source_from
