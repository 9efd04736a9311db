# Runs {{ name | comment }} on Azure. Made by dock2uni.
# The file is what `dock2uni convert --format vhd` writes.

terraform {
  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = ">= 4.0"
    }
  }
}

variable "location" {
  type    = string
  default = "westeurope"
}

variable "size" {
  type    = string
  default = "Standard_B1s"
}

variable "storage_account" {
  type        = string
  description = "Name of the storage account to make; unique in all of Azure"
}

provider "azurerm" {
  features {}
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
}

resource "azurerm_storage_container" "images" {
  name               = "images"
  storage_account_id = azurerm_storage_account.images.id
}

resource "azurerm_storage_blob" "disk" {
  name                   = {{ (cloud_name ~ "-" ~ short ~ ".vhd") | hcl }}
  storage_account_name   = azurerm_storage_account.images.name
  storage_container_name = azurerm_storage_container.images.name
  type                   = "Page"
  source                 = {{ image | hcl }}
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

resource "azurerm_managed_disk" "disk" {
  name                 = {{ cloud_name | hcl }}
  location             = var.location
  resource_group_name  = azurerm_resource_group.group.name
  storage_account_type = "Standard_LRS"
  create_option        = "Import"
  source_uri           = azurerm_storage_blob.disk.url
  storage_account_id   = azurerm_storage_account.images.id
  os_type              = "Linux"
  hyper_v_generation   = "V2"
}

resource "azurerm_virtual_machine" "vm" {
  name                  = {{ cloud_name | hcl }}
  location              = var.location
  resource_group_name   = azurerm_resource_group.group.name
  network_interface_ids = [azurerm_network_interface.card.id]
  vm_size               = var.size

  storage_os_disk {
    name            = azurerm_managed_disk.disk.name
    managed_disk_id = azurerm_managed_disk.disk.id
    create_option   = "Attach"
    os_type         = "Linux"
  }
}

output "address" {
  value = azurerm_public_ip.address.ip_address
}
