// Package link ties a node to its control plane: it enrols, keeps the identity
// fresh, brings desired documents in and reports out, and does without the
// control plane for as long as it is gone.
//
// All it remembers lies in one directory:
//
//	identity.json   where the control plane is, the node's key and certificate,
//	                the roots to trust; replaced as a whole
//	registering.pem the key of an enrolment whose answer has not come yet
//	desired.json    the last document that the node could apply
//	minutes.jsonl   minutes that the control plane has not acknowledged
package link
