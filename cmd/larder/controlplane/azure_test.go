package controlplane_test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources/v3"

	"larder/internal/lardertest/dbtest"
)

func ptr[T any](v T) *T { return &v }

// Azure's own clients sign in with a client secret, make resources, follow the
// operations, list and delete: only the base address is another one.
func TestAzuresOwnClientsManageIt(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir(), "")
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.roots}}
	t.Cleanup(transport.CloseIdleConnections)
	options := azcore.ClientOptions{
		Transport: &http.Client{Transport: transport},
		Cloud: cloud.Configuration{
			ActiveDirectoryAuthorityHost: p.url,
			Services:                     map[cloud.ServiceName]cloud.ServiceConfiguration{cloud.ResourceManager: {Endpoint: p.url, Audience: p.url}},
		},
	}
	cred, err := azidentity.NewClientSecretCredential(p.sub, p.client, p.token, &azidentity.ClientSecretCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	quick := &runtime.PollUntilDoneOptions{Frequency: 100 * time.Millisecond}
	for _, register := range []bool{false, true} {
		groups, err := armresources.NewResourceGroupsClient(p.sub, cred, &arm.ClientOptions{ClientOptions: options, DisableRPRegistration: !register})
		if err != nil {
			t.Fatal(err)
		}
		g, err := groups.CreateOrUpdate(ctx, "Schools", armresources.ResourceGroup{Location: ptr("westeurope"), Tags: map[string]*string{"who": ptr("it")}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if *g.Name != "Schools" || *g.Properties.ProvisioningState != "Succeeded" {
			t.Errorf("got %+v", g)
		}
		there, err := groups.CheckExistence(ctx, "SCHOOLS", nil)
		if err != nil || !there.Success {
			t.Errorf("existence: %v %v", there, err)
		}
		client, err := armresources.NewClient(p.sub, cred, &arm.ClientOptions{ClientOptions: options, DisableRPRegistration: !register})
		if err != nil {
			t.Fatal(err)
		}
		const version = "2024-11-30-preview"
		customer := "/subscriptions/" + p.sub + "/resourceGroups/schools/providers/Microsoft.ConnectedCache/enterpriseMccCustomers/north"
		made, err := client.BeginCreateOrUpdateByID(ctx, customer, version, armresources.GenericResource{Location: ptr("westeurope"), Properties: map[string]any{
			"customer": map[string]any{"contactName": "Ada", "isEnterpriseManaged": true}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := made.PollUntilDone(ctx, quick)
		if err != nil {
			t.Fatal(err)
		}
		if s := c.Properties.(map[string]any)["provisioningState"]; s != "Succeeded" {
			t.Errorf("the customer is %v at the end, want Succeeded", s)
		}
		node := customer + "/enterpriseMccCacheNodes/room-1"
		begun, err := client.BeginCreateOrUpdateByID(ctx, node, version, armresources.GenericResource{Location: ptr("West Europe"), Properties: map[string]any{
			"cacheNode":                     map[string]any{"autoUpdateRingType": "Fast"},
			"additionalCacheNodeProperties": map[string]any{"osType": "Linux", "driveConfiguration": []any{map[string]any{"physicalPath": "/srv/cache", "sizeInGb": 100}}},
		}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		n, err := begun.PollUntilDone(ctx, quick)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := json.Marshal(n.Properties)
		if a := p.do("GET", node+"?api-version="+version, ""); !strings.Contains(string(a.body), `"createdByType":"Application"`) || a.header.Get("ETag") == "" {
			t.Errorf("systemData or ETag are missing: %s", a.body)
		}
		for _, want := range []string{`"cacheNodeStateShortText":"Not Provisioned"`, `"autoUpdateRingType":"Fast"`, `"cacheNumber":1`, `"provisioningState":"Succeeded"`} {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s is not in %s", want, text)
			}
		}
		got, err := client.GetByID(ctx, strings.ToUpper(node), version, nil)
		if err != nil || !strings.EqualFold(*got.ID, node) {
			t.Errorf("in capitals: %v", err)
		}
		pager := client.NewListByResourceGroupPager("schools", &armresources.ClientListByResourceGroupOptions{Top: ptr(int32(1))})
		seen := 0
		for pager.More() {
			page, err := pager.NextPage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			seen += len(page.Value)
		}
		if seen != 2 {
			t.Errorf("%d resources are listed, want the customer and the node", seen)
		}
		_, err = client.GetByID(ctx, node+"x", version, nil)
		var no *azcore.ResponseError
		if !errors.As(err, &no) || no.StatusCode != 404 || no.ErrorCode != "ResourceNotFound" {
			t.Errorf("a node that is not there: %v", err)
		}
		gone, err := client.BeginDeleteByID(ctx, node, version, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := gone.PollUntilDone(ctx, quick); err != nil {
			t.Fatal(err)
		}
		dropped, err := groups.BeginDelete(ctx, "schools", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dropped.PollUntilDone(ctx, quick); err != nil {
			t.Fatal(err)
		}
		if there, err := groups.CheckExistence(ctx, "schools", nil); err != nil || there.Success {
			t.Errorf("the group is still there: %v %v", there, err)
		}
	}
	providers, err := armresources.NewProvidersClient(p.sub, cred, &arm.ClientOptions{ClientOptions: options})
	if err != nil {
		t.Fatal(err)
	}
	reg, err := providers.Register(ctx, "Microsoft.ConnectedCache", nil)
	if err != nil || *reg.RegistrationState != "Registered" {
		t.Errorf("registering the provider: %v", err)
	}
	bad, err := azidentity.NewClientSecretCredential(p.sub, p.client, p.token[:len(p.token)-2]+"AA", &azidentity.ClientSecretCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bad.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{p.url + "/.default"}}); err == nil || !strings.Contains(err.Error(), "invalid_client") {
		t.Errorf("a wrong secret: %v", err)
	}
}

// The documented flow by plain REST, on both engines: resource, node, wait, drives,
// install details, deploy, healthy.
func TestTheDocumentedFlow(t *testing.T) {
	t.Parallel()
	dbtest.EachURL(t, func(t *testing.T, url string) {
		if !strings.HasPrefix(url, "postgres") {
			url = ""
		}
		p := start(t, t.TempDir(), url)
		p.enrolledNode()
	})
}
