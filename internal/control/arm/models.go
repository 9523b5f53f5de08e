package arm

import (
	"time"

	"larder/internal/control/roster"
)

// The models of Microsoft.ConnectedCache (facts, connected-cache 4.3), with the
// fields that an enterprise's clients see. Those marked "read-only" are ignored
// in requests: clients send back what they got.

// Resource is what all resources have.
type Resource struct {
	ID         string             `json:"id,omitempty"`   // read-only
	Name       string             `json:"name,omitempty"` // read-only
	Type       string             `json:"type,omitempty"` // read-only
	Location   string             `json:"location,omitempty"`
	Tags       map[string]string  `json:"tags,omitempty"`
	SystemData *roster.SystemData `json:"systemData,omitempty"` // read-only
}

// CustomerResource is an enterpriseMccCustomers resource.
type CustomerResource struct {
	Resource
	Properties *CustomerProperties `json:"properties,omitempty"`
}

// CustomerProperties are its properties.
type CustomerProperties struct {
	ProvisioningState string              `json:"provisioningState,omitempty"` // read-only
	Customer          *CustomerEntity     `json:"customer,omitempty"`
	Additional        *AdditionalCustomer `json:"additionalCustomerProperties,omitempty"`
	StatusCode        string              `json:"statusCode,omitempty"`    // read-only
	StatusText        string              `json:"statusText,omitempty"`    // read-only
	StatusDetails     string              `json:"statusDetails,omitempty"` // read-only
	Status            string              `json:"status,omitempty"`        // read-only
	Error             *ErrorDetail        `json:"error,omitempty"`         // read-only
}

// ErrorDetail is ARM's.
type ErrorDetail struct {
	Code    string `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
	Target  string `json:"target,omitempty"`
}

// CustomerEntity is the organisation.
type CustomerEntity struct {
	CustomerID                  string     `json:"customerId,omitempty"` // read-only
	CustomerName                string     `json:"customerName,omitempty"`
	FullyQualifiedResourceID    string     `json:"fullyQualifiedResourceId,omitempty"`
	ClientTenantID              string     `json:"clientTenantId,omitempty"`
	ContactName                 string     `json:"contactName,omitempty"`
	ContactEmail                string     `json:"contactEmail,omitempty"`
	ContactPhone                string     `json:"contactPhone,omitempty"`
	IsEnterpriseManaged         *bool      `json:"isEnterpriseManaged,omitempty"`
	IsEntitled                  *bool      `json:"isEntitled,omitempty"`
	ReleaseVersion              *int       `json:"releaseVersion,omitempty"`
	ShouldMigrate               *bool      `json:"shouldMigrate,omitempty"`
	ResendSignupCode            *bool      `json:"resendSignupCode,omitempty"`
	VerifySignupCode            *bool      `json:"verifySignupCode,omitempty"`
	VerifySignupPhrase          string     `json:"verifySignupPhrase,omitempty"`
	CreateAsyncOperationID      string     `json:"createAsyncOperationId,omitempty"`      // read-only
	DeleteAsyncOperationID      string     `json:"deleteAsyncOperationId,omitempty"`      // read-only
	LastSyncWithAzureTimestamp  *time.Time `json:"lastSyncWithAzureTimestamp,omitempty"`  // read-only
	SynchWithAzureAttemptsCount *int       `json:"synchWithAzureAttemptsCount,omitempty"` // read-only
}

// AdditionalCustomer are the figures of the last 24 hours, and what clients keep.
type AdditionalCustomer struct {
	HealthyCount      *int       `json:"customerPropertiesOverviewCacheNodesHealthyCount,omitempty"`   // read-only
	UnhealthyCount    *int       `json:"customerPropertiesOverviewCacheNodesUnhealthyCount,omitempty"` // read-only
	EgressMax         *float64   `json:"customerPropertiesOverviewEgressMbpsMax,omitempty"`            // read-only
	EgressMaxDateTime *time.Time `json:"customerPropertiesOverviewEgressMbpsMaxDateTime,omitempty"`    // read-only
	AverageEgress     *float64   `json:"customerPropertiesOverviewAverageEgressMbps,omitempty"`        // read-only
	MissMax           *float64   `json:"customerPropertiesOverviewMissMbpsMax,omitempty"`              // read-only
	MissMaxDateTime   *time.Time `json:"customerPropertiesOverviewMissMbpsMaxDateTime,omitempty"`      // read-only
	AverageMiss       *float64   `json:"customerPropertiesOverviewAverageMissMbps,omitempty"`          // read-only
	CacheEfficiency   *float64   `json:"customerPropertiesOverviewCacheEfficiency,omitempty"`          // read-only

	CustomerEmail                 string     `json:"customerEmail,omitempty"`
	CustomerEntitlementSkuID      string     `json:"customerEntitlementSkuId,omitempty"`
	CustomerEntitlementSkuGUID    string     `json:"customerEntitlementSkuGuid,omitempty"`
	CustomerEntitlementSkuName    string     `json:"customerEntitlementSkuName,omitempty"`
	CustomerEntitlementExpiration *time.Time `json:"customerEntitlementExpiration,omitempty"`
	Optional
}

// Optional are fields that clients may use as they like.
type Optional struct {
	OptionalProperty1 string `json:"optionalProperty1,omitempty"`
	OptionalProperty2 string `json:"optionalProperty2,omitempty"`
	OptionalProperty3 string `json:"optionalProperty3,omitempty"`
	OptionalProperty4 string `json:"optionalProperty4,omitempty"`
	OptionalProperty5 string `json:"optionalProperty5,omitempty"`
}

// NodeResource is an enterpriseMccCacheNodes resource.
type NodeResource struct {
	Resource
	Properties *NodeProperties `json:"properties,omitempty"`
}

// NodeProperties are its properties.
type NodeProperties struct {
	ProvisioningState string           `json:"provisioningState,omitempty"` // read-only
	CacheNode         *CacheNodeEntity `json:"cacheNode,omitempty"`
	Additional        *AdditionalNode  `json:"additionalCacheNodeProperties,omitempty"`
	StatusCode        string           `json:"statusCode,omitempty"`    // read-only
	StatusText        string           `json:"statusText,omitempty"`    // read-only
	StatusDetails     string           `json:"statusDetails,omitempty"` // read-only
	Status            string           `json:"status,omitempty"`        // read-only
	Error             *ErrorDetail     `json:"error,omitempty"`         // read-only
}

// CacheNodeEntity is the node.
type CacheNodeEntity struct {
	CacheNodeID              string   `json:"cacheNodeId,omitempty"` // read-only: ours to give
	CacheNodeName            string   `json:"cacheNodeName,omitempty"`
	CustomerID               string   `json:"customerId,omitempty"` // read-only
	CustomerName             string   `json:"customerName,omitempty"`
	CustomerIndex            string   `json:"customerIndex,omitempty"`
	FullyQualifiedResourceID string   `json:"fullyQualifiedResourceId,omitempty"`
	FullyQualifiedDomainName string   `json:"fullyQualifiedDomainName,omitempty"`
	IPAddress                string   `json:"ipAddress,omitempty"`
	IsEnabled                *bool    `json:"isEnabled,omitempty"`
	IsEnterpriseManaged      *bool    `json:"isEnterpriseManaged,omitempty"`
	IsFrozen                 *bool    `json:"isFrozen,omitempty"` // read-only
	MaxAllowableEgressInMbps *int     `json:"maxAllowableEgressInMbps,omitempty"`
	MaxAllowableProbability  *float64 `json:"maxAllowableProbability,omitempty"` // read-only
	AutoUpdateRingType       string   `json:"autoUpdateRingType,omitempty"`
	AutoUpdateRequestedWeek  *int     `json:"autoUpdateRequestedWeek,omitempty"`
	AutoUpdateRequestedDay   *int     `json:"autoUpdateRequestedDay,omitempty"`
	AutoUpdateRequestedTime  string   `json:"autoUpdateRequestedTime,omitempty"`

	ImageURI                     string     `json:"imageUri,omitempty"`                             // read-only
	XCid                         string     `json:"xCid,omitempty"`                                 // read-only
	Category                     string     `json:"category,omitempty"`                             // read-only
	ClientTenantID               string     `json:"clientTenantId,omitempty"`                       // read-only
	ContainerConfigurations      string     `json:"containerConfigurations,omitempty"`              // read-only
	ContainerResyncTrigger       *int       `json:"containerResyncTrigger,omitempty"`               // read-only
	ConfigurationState           string     `json:"configurationState,omitempty"`                   // read-only
	ConfigurationStateText       string     `json:"configurationStateText,omitempty"`               // read-only
	ReleaseVersion               *int       `json:"releaseVersion,omitempty"`                       // read-only
	WorkerConnections            *int       `json:"workerConnections,omitempty"`                    // read-only
	WorkerConnectionsLastUpdated *time.Time `json:"workerConnectionsLastUpdatedDateTime,omitempty"` // read-only
	LastUpdatedTimestamp         *time.Time `json:"lastUpdatedTimestamp,omitempty"`                 // read-only
	LastSyncWithAzureTimestamp   *time.Time `json:"lastSyncWithAzureTimestamp,omitempty"`           // read-only
	SynchWithAzureAttemptsCount  *int       `json:"synchWithAzureAttemptsCount,omitempty"`          // read-only
	CreateAsyncOperationID       string     `json:"createAsyncOperationId,omitempty"`               // read-only
	DeleteAsyncOperationID       string     `json:"deleteAsyncOperationId,omitempty"`               // read-only
	ShouldMigrate                *bool      `json:"shouldMigrate,omitempty"`
	ReviewState                  *int       `json:"reviewState,omitempty"`     // read-only
	ReviewStateText              string     `json:"reviewStateText,omitempty"` // read-only
	ReviewFeedback               string     `json:"reviewFeedback,omitempty"`  // read-only

	// New in 2026-06-01.
	OpenFirewallPort80   *bool  `json:"openFirewallPort80,omitempty"`
	OpenFirewallPort443  *bool  `json:"openFirewallPort443,omitempty"`
	OpenFirewallPort5000 *bool  `json:"openFirewallPort5000,omitempty"`
	OpenFirewallPort5001 *bool  `json:"openFirewallPort5001,omitempty"`
	RuntimeAccountType   string `json:"runtimeAccountType,omitempty"`
}

// DriveConfiguration is one drive of a node.
type DriveConfiguration struct {
	PhysicalPath string `json:"physicalPath,omitempty"`
	SizeInGb     *int   `json:"sizeInGb,omitempty"`
	CacheNumber  *int   `json:"cacheNumber,omitempty"`
	NginxMapping string `json:"nginxMapping,omitempty"`
}

// ProxyURLConfiguration is host:port of a proxy.
type ProxyURLConfiguration struct {
	ProxyURL string `json:"proxyUrl,omitempty"`
}

// AdditionalNode is what the machine is to be, and what it is.
type AdditionalNode struct {
	OSType                string                 `json:"osType,omitempty"`
	DriveConfiguration    []DriveConfiguration   `json:"driveConfiguration,omitempty"`
	IsProxyRequired       string                 `json:"isProxyRequired,omitempty"`
	ProxyURLConfiguration *ProxyURLConfiguration `json:"proxyUrlConfiguration,omitempty"`
	CreationMethod        *int                   `json:"creationMethod,omitempty"`
	AutoUpdateVersion     string                 `json:"autoUpdateVersion,omitempty"`
	UpdateInfoDetails     string                 `json:"updateInfoDetails,omitempty"`
	UpdateRequested       *time.Time             `json:"updateRequestedDateTime,omitempty"`
	DetailsIssuesList     []string               `json:"cacheNodePropertiesDetailsIssuesList,omitempty"`
	Optional

	IsProvisioned                   *bool           `json:"isProvisioned,omitempty"`                   // read-only
	CacheNodeState                  *int            `json:"cacheNodeState,omitempty"`                  // read-only
	CacheNodeStateShortText         string          `json:"cacheNodeStateShortText,omitempty"`         // read-only
	CacheNodeStateDetailedText      string          `json:"cacheNodeStateDetailedText,omitempty"`      // read-only
	AggregatedStatusCode            *int            `json:"aggregatedStatusCode,omitempty"`            // read-only
	AggregatedStatusText            string          `json:"aggregatedStatusText,omitempty"`            // read-only
	AggregatedStatusDetails         string          `json:"aggregatedStatusDetails,omitempty"`         // read-only
	ProductVersion                  string          `json:"productVersion,omitempty"`                  // read-only
	IssuesList                      []string        `json:"issuesList,omitempty"`                      // read-only
	IssuesCount                     *int            `json:"issuesCount,omitempty"`                     // read-only
	CurrentTLSCertificate           *TLSCertificate `json:"currentTlsCertificate,omitempty"`           // read-only
	TLSStatus                       string          `json:"tlsStatus,omitempty"`                       // read-only
	LastAutoUpdateInfo              *AutoUpdate     `json:"lastAutoUpdateInfo,omitempty"`              // read-only
	AutoUpdateAppliedVersion        string          `json:"autoUpdateAppliedVersion,omitempty"`        // read-only
	AutoUpdateNextAvailableVersion  string          `json:"autoUpdateNextAvailableVersion,omitempty"`  // read-only
	AutoUpdateNextAvailableDateTime *time.Time      `json:"autoUpdateNextAvailableDateTime,omitempty"` // read-only
	AutoUpdateLastAppliedState      string          `json:"autoUpdateLastAppliedState,omitempty"`      // read-only
	AutoUpdateLastAppliedDetails    string          `json:"autoUpdateLastAppliedDetails,omitempty"`    // read-only
	AutoUpdateLastAppliedDateTime   *time.Time      `json:"autoUpdateLastAppliedDateTime,omitempty"`   // read-only
	AutoUpdateLastTriggeredDateTime *time.Time      `json:"autoUpdateLastTriggeredDateTime,omitempty"` // read-only

	// New in 2026-06-01, all read-only.
	HostOSEdition        string `json:"hostOsEdition,omitempty"`
	HostOSVersion        string `json:"hostOsVersion,omitempty"`
	HostOSBuild          string `json:"hostOsBuild,omitempty"`
	ContainerOSEdition   string `json:"containerOsEdition,omitempty"`
	ContainerOSVersion   string `json:"containerOsVersion,omitempty"`
	ContainerOSBuild     string `json:"containerOsBuild,omitempty"`
	DistroOSEditionWsl   string `json:"distroOsEditionWsl,omitempty"`
	DistroOSVersionWsl   string `json:"distroOsVersionWsl,omitempty"`
	DistroOSBuildWsl     string `json:"distroOsBuildWsl,omitempty"`
	AppVersionWsl        string `json:"appVersionWsl,omitempty"`
	InstallVersionMsix   string `json:"installVersionMsix,omitempty"`
	InstallVersionScript string `json:"installVersionScript,omitempty"`
}

// TLSCertificate is a serving certificate of a node.
type TLSCertificate struct {
	ActionRequired      string     `json:"actionRequired,omitempty"`
	CertificateFileName string     `json:"certificateFileName,omitempty"`
	Thumbprint          string     `json:"thumbprint,omitempty"`
	ExpiryDate          *time.Time `json:"expiryDate,omitempty"`
	NotBeforeDate       *time.Time `json:"notBeforeDate,omitempty"`
	Subject             string     `json:"subject,omitempty"`
	SubjectAltName      string     `json:"subjectAltName,omitempty"`
	CertType            string     `json:"certType,omitempty"` // new in 2026-06-01
}

// Issue is something that needed attention.
type Issue struct {
	MccIssueType   string     `json:"mccIssueType,omitempty"`
	ToastString    string     `json:"toastString,omitempty"`
	DetailString   string     `json:"detailString,omitempty"`
	HelpLink       string     `json:"helpLink,omitempty"`
	IssueStartDate *time.Time `json:"issueStartDate,omitempty"`
	IssueEndDate   *time.Time `json:"issueEndDate,omitempty"`
}

// AutoUpdate is an update of a node.
type AutoUpdate struct {
	ImageURIBeforeUpdate        string     `json:"imageUriBeforeUpdate,omitempty"`
	ImageURITargeted            string     `json:"imageUriTargeted,omitempty"`
	ImageURITerminal            string     `json:"imageUriTerminal,omitempty"`
	AutoUpdateRingType          *int       `json:"autoUpdateRingType,omitempty"`
	MovedToTerminalState        *time.Time `json:"movedToTerminalStateDateTime,omitempty"`
	RuleRequestedWeek           *int       `json:"ruleRequestedWeek,omitempty"`
	RuleRequestedDay            *int       `json:"ruleRequestedDay,omitempty"`
	RuleRequestedHour           string     `json:"ruleRequestedHour,omitempty"`
	RuleRequestedMinute         string     `json:"ruleRequestedMinute,omitempty"`
	TimeToGoLive                string     `json:"timeToGoLiveDateTime,omitempty"`
	PlanID                      *int64     `json:"planId,omitempty"`
	PlanChangeLogText           string     `json:"planChangeLogText,omitempty"`
	LastAppliedStatus           *int       `json:"autoUpdateLastAppliedStatus,omitempty"`
	LastAppliedStatusText       string     `json:"autoUpdateLastAppliedStatusText,omitempty"`
	LastAppliedStatusDetailText string     `json:"autoUpdateLastAppliedStatusDetailedText,omitempty"`
	Created                     *time.Time `json:"createdDateTimeUtc,omitempty"`
	UpdatedRegistry             *time.Time `json:"updatedRegistryDateTimeUtc,omitempty"`
}

// InstallDetails are what a machine needs to become the node.
type InstallDetails struct {
	Resource
	Properties InstallProperties `json:"properties"`
}

// InstallProperties hold secrets.
type InstallProperties struct {
	CustomerID                    string                 `json:"customerId"`
	CacheNodeID                   string                 `json:"cacheNodeId"`
	PrimaryAccountKey             string                 `json:"primaryAccountKey"`
	SecondaryAccountKey           string                 `json:"secondaryAccountKey"`
	RegistrationKey               string                 `json:"registrationKey"`
	TLSCertificateProvisioningKey string                 `json:"tlsCertificateProvisioningKey"`
	DriveConfiguration            []DriveConfiguration   `json:"driveConfiguration"`
	ProxyURLConfiguration         *ProxyURLConfiguration `json:"proxyUrlConfiguration,omitempty"`
}

// AutoUpdateHistory are all updates of a node.
type AutoUpdateHistory struct {
	Resource
	Properties AutoUpdateHistoryProperties `json:"properties"`
}

// AutoUpdateHistoryProperties list them, the latest first.
type AutoUpdateHistoryProperties struct {
	CustomerID        string       `json:"customerId"`
	CacheNodeID       string       `json:"cacheNodeId"`
	AutoUpdateHistory []AutoUpdate `json:"autoUpdateHistory"`
}

// IssueHistory are all issues of a node.
type IssueHistory struct {
	Resource
	Properties IssueHistoryProperties `json:"properties"`
}

// IssueHistoryProperties list them, the latest first.
type IssueHistoryProperties struct {
	CustomerID      string  `json:"customerId"`
	CacheNodeID     string  `json:"cacheNodeId"`
	MccIssueHistory []Issue `json:"mccIssueHistory"`
}

// TLSCertificateHistory are all serving certificates of a node.
type TLSCertificateHistory struct {
	Resource
	Properties TLSCertificateHistoryProperties `json:"properties"`
}

// TLSCertificateHistoryProperties list them, the latest first.
type TLSCertificateHistoryProperties struct {
	CustomerID            string           `json:"customerId"`
	CacheNodeID           string           `json:"cacheNodeId"`
	TLSCertificateHistory []TLSCertificate `json:"tlsCertificateHistory"`
}

// List is a page of resources.
type List[T any] struct {
	Value    []T    `json:"value"`
	NextLink string `json:"nextLink,omitempty"`
}

// Operation is how far a long-running operation is.
type Operation struct {
	ID              string       `json:"id"`
	Name            string       `json:"name"`
	ResourceID      string       `json:"resourceId"`
	Status          string       `json:"status"` // InProgress, Succeeded, Failed or Canceled
	StartTime       time.Time    `json:"startTime"`
	EndTime         *time.Time   `json:"endTime,omitempty"`
	PercentComplete int          `json:"percentComplete"`
	Error           *ErrorDetail `json:"error,omitempty"`
}

// TagsPatch is the body of PATCH.
type TagsPatch struct {
	Tags map[string]string `json:"tags"`
}
