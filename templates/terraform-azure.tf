# Runs {{ name | comment }} on Azure. Made by dock2uni.
# The network cards of Azure (netvsc, MANA) are none that the VM drives, so the virtual machine there is a host
# for it: Debian with QEMU and KVM, which sizes with nested virtualization have (Dv5, Ev5 and others).

terraform {
  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = ">= 4.9"
    }
  }
}

variable "location" {
  type    = string
  default = "westeurope"
}

variable "size" {
  type        = string
  default     = {{ instance | hcl }}
  description = "Has nested virtualization"
}

variable "storage_account" {
  type        = string
  description = "Name of the storage account to make; unique in all of Azure"
}

variable "ssh_public_key" {
  type        = string
  description = "For the host, which Azure makes none without. Its port is not opened"
}

provider "azurerm" {
  features {}
}

locals {
  image  = {{ image | hcl }}
  sha256 = filesha256(local.image)
}

resource "azurerm_resource_group" "group" {
  name     = {{ cloud_name | hcl }}
  location = var.location
}

resource "azurerm_storage_account" "images" {
  name                     = var.storage_account
  resource_group_name      = azurerm_resource_group.group.name
  location                 = var.location
  account_tier             = "Standard"
  account_replication_type = "LRS"
  min_tls_version          = "TLS1_2"
}

resource "azurerm_storage_container" "images" {
  name               = "images"
  storage_account_id = azurerm_storage_account.images.id
}

resource "azurerm_storage_blob" "disk" {
  # Another name for another image: a blob does not notice a new file.
  name                   = "{{ cloud_name }}-${substr(local.sha256, 0, 16)}.img"
  storage_account_name   = azurerm_storage_account.images.name
  storage_container_name = azurerm_storage_container.images.name
  type                   = "Block"
  source                 = local.image
}

# The host may read images, and nothing else.
resource "azurerm_user_assigned_identity" "host" {
  name                = {{ cloud_name | hcl }}
  location            = var.location
  resource_group_name = azurerm_resource_group.group.name
}

resource "azurerm_role_assignment" "image" {
  scope                = azurerm_storage_account.images.id
  role_definition_name = "Storage Blob Data Reader"
  principal_id         = azurerm_user_assigned_identity.host.principal_id
}

resource "azurerm_virtual_network" "network" {
  name                = {{ cloud_name | hcl }}
  address_space       = ["10.0.0.0/16"]
  location            = var.location
  resource_group_name = azurerm_resource_group.group.name
}

resource "azurerm_subnet" "subnet" {
  name                 = "vms"
  resource_group_name  = azurerm_resource_group.group.name
  virtual_network_name = azurerm_virtual_network.network.name
  address_prefixes     = ["10.0.1.0/24"]
}

resource "azurerm_network_security_group" "ports" {
  name                = {{ cloud_name | hcl }}
  location            = var.location
  resource_group_name = azurerm_resource_group.group.name
{%- for port in ports %}

  security_rule {
    name                       = {{ port.label | hcl }}
    priority                   = {{ 100 + loop.index0 }}
    direction                  = "Inbound"
    access                     = "Allow"
    protocol                   = {{ port.proto | capitalize | hcl }}
    source_address_prefix      = "*"
    source_port_range          = "*"
    destination_address_prefix = "*"
    destination_port_range     = {{ port.host | string | hcl }}
  }
{%- endfor %}
}

resource "azurerm_subnet_network_security_group_association" "ports" {
  subnet_id                 = azurerm_subnet.subnet.id
  network_security_group_id = azurerm_network_security_group.ports.id
}

resource "azurerm_public_ip" "address" {
  name                = {{ cloud_name | hcl }}
  location            = var.location
  resource_group_name = azurerm_resource_group.group.name
  allocation_method   = "Static"
}

resource "azurerm_network_interface" "card" {
  name                = {{ cloud_name | hcl }}
  location            = var.location
  resource_group_name = azurerm_resource_group.group.name

  ip_configuration {
    name                          = "default"
    subnet_id                     = azurerm_subnet.subnet.id
    private_ip_address_allocation = "Dynamic"
    public_ip_address_id          = azurerm_public_ip.address.id
  }
}

locals {
  cloud_config = {
    apt            = { conf = "APT::Install-Recommends \"false\";\n" }
    package_update = true
    packages       = ["qemu-system-x86", "socat", "curl", "jq"]

    write_files = [
{%- include "cloud-host" %}
      {
        path        = {{ ("/usr/local/sbin/" ~ cloud_name ~ "-image") | hcl }}
        permissions = "0755"
        content = join("\n", [
          "#!/bin/sh",
          "# Fetches the disk image: usable only when it is whole.",
          "set -eu",
          "image={{ host_image }}",
          "[ ! -e \"$image\" ] || exit 0",
          "mkdir -p \"$${image%/*}\"",
          "identity='${azurerm_user_assigned_identity.host.client_id}'",
          "query=\"api-version=2018-02-01&resource=https%3A%2F%2Fstorage.azure.com%2F&client_id=$identity\"",
          "token=$(curl -sSf -H Metadata:true \\",
          "    \"http://169.254.169.254/metadata/identity/oauth2/token?$query\" | jq -er .access_token)",
          "# Read from a pipe, so that nobody sees the token among the arguments.",
          "printf 'header = \"Authorization: Bearer %s\"\\n' \"$token\" |",
          "    curl -sSf -K - -H 'x-ms-version: 2021-08-06' -o \"$image.part\" '${azurerm_storage_blob.disk.url}'",
          "echo \"${local.sha256}  $image.part\" | sha256sum --check --quiet",
          "mv \"$image.part\" \"$image\"",
          "",
        ])
      },
    ]

    runcmd = [
      ["systemctl", "daemon-reload"],
      ["systemctl", "enable", "--now", {{ (cloud_name ~ ".service") | hcl }}],
    ]
  }
}

resource "azurerm_linux_virtual_machine" "host" {
  name                  = {{ cloud_name | hcl }}
  location              = var.location
  resource_group_name   = azurerm_resource_group.group.name
  network_interface_ids = [azurerm_network_interface.card.id]
  size                  = var.size
  admin_username        = "host"
  depends_on            = [azurerm_role_assignment.image]

  custom_data = base64encode("#cloud-config\n${jsonencode(local.cloud_config)}")

  admin_ssh_key {
    username   = "host"
    public_key = var.ssh_public_key
  }

  os_disk {
    caching              = "ReadWrite"
    storage_account_type = "StandardSSD_LRS"
  }

  source_image_reference {
    publisher = "Debian"
    offer     = "debian-12"
    sku       = "12-gen2"
    version   = "latest"
  }

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.host.id]
  }
}

output "address" {
  value = azurerm_public_ip.address.ip_address
}
